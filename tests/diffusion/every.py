"""One of every schedule and of every objective, for what holds for all of them."""

from mdpipe.diffusion.objectives.any_order import AnyOrder
from mdpipe.diffusion.objectives.autoregressive import Autoregressive
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.d3pm import D3PM
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.maskgit import MaskGIT
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.objectives.sedd import SEDD
from mdpipe.diffusion.schedules.base import EPSILON, Schedule
from mdpipe.diffusion.schedules.cosine import Cosine
from mdpipe.diffusion.schedules.geometric import Geometric
from mdpipe.diffusion.schedules.linear import Linear
from mdpipe.diffusion.schedules.polynomial import Polynomial


def every_schedule(epsilon: float = EPSILON) -> list[Schedule]:
    return [
        Linear(epsilon),
        Polynomial(epsilon, exponent=1.5),
        Polynomial(epsilon, exponent=3.0),
        Geometric(epsilon),
        Cosine(epsilon),
    ]


def every_objective(vocabulary: int, schedule: Schedule) -> dict[str, Objective]:
    """By their kind, and their steps where there are some."""
    return {
        "md4": MD4(schedule, vocabulary),
        "md4 in steps": MD4(schedule, vocabulary, timesteps=5),
        "genmd4": GenMD4(vocabulary, initial_exponent=2.0),
        "genmd4 in steps": GenMD4(vocabulary, initial_exponent=2.0, timesteps=5, grid="cosine"),
        "maskgit": MaskGIT(schedule, vocabulary),
        "sedd": SEDD(schedule, vocabulary),
        "d3pm": D3PM(schedule, vocabulary, timesteps=5, auxiliary=0.1),
        "any_order": AnyOrder(vocabulary),
        "autoregressive": Autoregressive(vocabulary),
    }
