"""All schedules and all objectives, for laws that hold for each of them."""

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.baselines import D3PM, SEDD, AnyOrder, Autoregressive, MaskGIT
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Cosine, Geometric, Linear, Polynomial, Schedule
from mdpipe.params.diffusion import (
    EPSILON,
    AnyOrderConfig,
    AutoregressiveConfig,
    CosineConfig,
    D3PMConfig,
    GenMD4Config,
    GeometricConfig,
    LinearConfig,
    MaskGITConfig,
    MD4Config,
    PolynomialConfig,
    SEDDConfig,
)


def every_schedule(epsilon: float = EPSILON) -> list[Schedule]:
    return [
        Linear(LinearConfig(epsilon=epsilon)),
        Polynomial(PolynomialConfig(epsilon=epsilon, exponent=1.5)),
        Polynomial(PolynomialConfig(epsilon=epsilon, exponent=3.0)),
        Geometric(GeometricConfig(epsilon=epsilon)),
        Cosine(CosineConfig(epsilon=epsilon)),
    ]


def every_objective(vocab_size: int, schedule: Schedule) -> dict[str, Objective]:
    """Return all objectives by name: their kind, and whether time is discrete."""
    return {
        "md4": MD4(MD4Config(schedule=schedule.config), vocab_size),
        "md4 in steps": MD4(MD4Config(schedule=schedule.config, timesteps=5), vocab_size),
        "genmd4": GenMD4(GenMD4Config(initial_exponent=2.0), vocab_size),
        "genmd4 in steps": GenMD4(GenMD4Config(initial_exponent=2.0, timesteps=5, time_grid="cosine"), vocab_size),
        "maskgit": MaskGIT(MaskGITConfig(schedule=schedule.config), vocab_size),
        "sedd": SEDD(SEDDConfig(schedule=schedule.config), vocab_size),
        "d3pm": D3PM(D3PMConfig(schedule=schedule.config, timesteps=5, auxiliary=0.1), vocab_size),
        "any_order": AnyOrder(AnyOrderConfig(), vocab_size),
        "autoregressive": Autoregressive(AutoregressiveConfig(), vocab_size),
    }
