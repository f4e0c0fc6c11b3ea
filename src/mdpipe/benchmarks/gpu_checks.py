"""Check that training on a GPU computes what it computes on a CPU, and that no step waits for the device.

Losses of a few training steps, and the gradient of the first, are compared with those of a CPU in float32. DDP and
FSDP2 in a group of one process must train what a process without a group trains on a CPU.

A check is a function that returns what it found, and raises an error if that does not pass.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mdpipe.benchmarks.runner import Result
from mdpipe.benchmarks.sampling import build_grid_sampler
from mdpipe.benchmarks.settings import Shape
from mdpipe.benchmarks.training import start_training
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.networks.base import Network
from mdpipe.params.diffusion import GenMD4Config, MD4Config, ObjectiveConfig
from mdpipe.params.networks import TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.training import HardwareConfig, TrainConfig
from mdpipe.training.distributed import LOCAL_RANK, WORLD_SIZE, full_tensor, init_distributed
from mdpipe.training.loop import Batches, Trainer

if TYPE_CHECKING:
    from mdpipe.benchmarks.gpu import Job

STEPS = 3
"""Steps whose losses are compared; those of the second and third also depend on the optimizer."""
NOISE_OF_WEIGHTS = 0.02
"""Standard deviation of the noise added to all initial weights: zero heads and branches would hide their gradients."""
SAMPLE_LENGTH, SAMPLE_STEPS = 16, 4
COMPILE_SECONDS = 20
"""Least time that is left for a network that is compiled."""
COMPILES: dict[str, Any] = {"seconds": COMPILE_SECONDS, "compiles": True}
CPU = torch.device("cpu")
Trace = tuple[list[float], dict[str, Tensor]]
"""The losses of a short training run, and the gradients of its first step, after clipping."""
EAGER = HardwareConfig()
BFLOAT16 = HardwareConfig(precision="bfloat16")
VARIANTS = {
    "float32": EAGER,
    "bfloat16": BFLOAT16,
    "float32, activation checkpointing": HardwareConfig(activation_checkpointing=True),
}
COMPILED = {
    "float32, compiled": HardwareConfig(compile=True),
    "bfloat16, compiled": HardwareConfig(precision="bfloat16", compile=True),
}


@dataclass(frozen=True)
class Case:
    """A small training run whose losses and gradients are compared."""

    shape: Shape
    objective: ObjectiveConfig


TEXT = Shape(
    TransformerConfig(num_layers=2, num_heads=2, hidden_size=128, time_conditioning=True, dropout=0.1), 27, (64,), 8
)
UNET = Shape(UNetConfig(hidden_size=32, num_blocks=2, time_conditioning=True, dropout=0.1), 256, (16, 16, 3), 4)
UVIT_CONFIG = UViTConfig(
    hidden_size=32, num_blocks=1, transformer_width=64, num_layers=2, num_heads=2, time_conditioning=True, dropout=0.1
)
CASES = {
    "transformer, md4": Case(TEXT, MD4Config()),
    "uvit, md4": Case(Shape(UVIT_CONFIG, 256, (16, 16, 3), 4), MD4Config()),
    "unet, md4": Case(UNET, MD4Config()),
    "transformer, genmd4": Case(TEXT, GenMD4Config()),
}
"""Every network, and both objectives that train with masks; the most important first, since compiling takes long."""

TOLERANCES = {
    "float32": {"loss": 1e-4, "gradient": 1e-4, "parameter": 1e-3},
    "tf32": {"loss": 1e-3, "gradient": 1e-2, "parameter": 5e-2},
    "bfloat16": {"loss": 2e-3, "gradient": 4e-2, "parameter": 1e-1},
}
"""Bounds on the relative error of any loss; of the whole gradient, ||g - g'|| / ||g'||; and of any parameter's
gradient, ||g - g'|| / (||g'|| + 0.001 of the whole gradient's norm)."""


def run_correctness(job: "Job", cases: Mapping[str, Case] = CASES, sampled_vocab_size: int = 50257) -> Iterator[Result]:
    """Compare eager variants, look for waits, compare samples, and then compiled variants, which take longest."""
    device = job.device
    references = {name: record_trace(case, EAGER, CPU) for name, case in cases.items()}

    def row(name: str, variant: str, check: Callable[..., Result], *settings: Any, **limits: Any) -> Result:
        return job.attempt({"check": name, "variant": variant}, partial(check, *settings), **limits)

    for name, case in cases.items():
        for variant, hardware in VARIANTS.items():
            yield row(name, variant, check_training, references[name], case, hardware, device)
        if device.type == "cuda" and case.shape.network.kind != "transformer":
            yield row(name, "float32, TF32", check_training, references[name], case, EAGER, device, True)
    for kind in ObjectiveConfig.kinds:
        case = Case(cases["transformer, md4"].shape, ObjectiveConfig.parse(kind))
        yield row(f"no step waits, {kind}", "float32", check_no_waits, case, EAGER, device)
    for name in ("unet, md4", "uvit, md4"):
        yield row(f"no step waits, {name}", "bfloat16", check_no_waits, cases[name], BFLOAT16, device)
    for kind in ("ancestral_stepwise", "ancestral"):
        yield row(f"sampler {kind}", "float64", check_samples, kind, sampled_vocab_size, device)
    for variant, hardware in COMPILED.items():
        for name, case in cases.items():
            torch.compiler.reset()
            settings = (case, hardware, device)
            yield row(name, variant, check_training, references[name], *settings, **COMPILES)
            yield row(f"no step waits, {name}", variant, check_no_waits, *settings, **COMPILES)


def run_parallel(job: "Job", cases: Mapping[str, Case] = CASES) -> Iterator[Result]:
    """Compare each strategy, in float32 and eager, then as presets for several GPUs train: compiled, in bfloat16."""
    references = {name: record_trace(case, EAGER, CPU) for name, case in cases.items()}  # Without a group.
    os.environ |= {WORLD_SIZE: "1", "RANK": "0", LOCAL_RANK: "0", "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # Any free port: no other process needs it.
    compiled = "bfloat16, compiled"
    rows = [(name, "float32", EAGER) for name in cases] + [("transformer, md4", compiled, COMPILED[compiled])]
    with init_distributed():
        for (name, variant, hardware), strategy in product(rows, ("ddp", "fsdp")):
            torch.compiler.reset()
            spread = hardware.model_copy(update={"strategy": strategy})
            check = partial(check_training, references[name], cases[name], spread, job.device)
            limits: dict[str, Any] = {"seconds": COMPILE_SECONDS / 2, "compiles": True} if hardware.compile else {}
            yield job.attempt({"check": name, "variant": f"{variant}, {strategy}"}, check, **limits)


def check_training(
    reference: Trace, case: Case, hardware: HardwareConfig, device: torch.device, tf32: bool = False
) -> Result:
    """Compare a training run with the reference; `tf32` lets float32 convolutions round their inputs to TF32."""
    torch.backends.cudnn.allow_tf32 = tf32
    found = record_trace(case, hardware, device)
    return compare_traces(found, reference, TOLERANCES["tf32" if tf32 else hardware.precision])


def record_trace(case: Case, hardware: HardwareConfig, device: torch.device) -> Trace:
    """Train for a few steps."""
    trainer, batches = start(case, hardware, device)
    state = trainer.state
    trainer.train_step(batches)
    gradients = {
        f"{prefix}{name}": full_tensor(parameter.grad).detach().float().to("cpu", copy=True)
        for prefix, module in (("", state.network), ("objective.", state.objective))
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    for _ in range(STEPS - 1):
        trainer.train_step(batches)
    return state.history.state_dict()["losses"][:STEPS].tolist(), gradients


def start(case: Case, hardware: HardwareConfig, device: torch.device) -> tuple[Trainer, Batches]:
    """Return a new training run of a small network, and its batches."""
    network = build_perturbed_network(case.shape, causal=case.objective.is_causal).to(device)
    train = TrainConfig(steps=2 * STEPS, batch_size=case.shape.batch, learning_rate=1e-3, warmup_steps=0)
    return start_training(network, case.shape, case.objective, train, hardware)


def build_perturbed_network(shape: Shape, *, causal: bool = False) -> Network:
    """Return a network on the CPU that has no zero weights."""
    network = shape.build_network(seed=0, causal=causal)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(NOISE_OF_WEIGHTS * torch.randn(parameter.shape, generator=generator))
    return network


def compare_traces(found: Trace, reference: Trace, tolerance: dict[str, float]) -> Result:
    """Return the relative differences and their tolerances.

    Raises:
        ValueError: A difference is larger than its tolerance, or not finite; the message has all of them.
    """
    (losses, gradients), (expected_losses, expected) = found, reference
    expected_loss = torch.tensor(expected_losses, dtype=torch.float64)
    loss = float(((torch.tensor(losses, dtype=torch.float64) - expected_loss) / expected_loss).abs().max())
    if gradients.keys() != expected.keys():
        raise ValueError(f"gradients differ in {sorted(gradients.keys() ^ expected.keys())}")
    errors = {name: float((gradients[name] - gradient).norm()) for name, gradient in expected.items()}
    norms = {name: float(gradient.norm()) for name, gradient in expected.items()}
    norm = math.hypot(*norms.values())
    relative = {name: error / (norms[name] + 1e-3 * norm) for name, error in errors.items()}
    worst = max(relative, key=lambda name: relative[name])
    differences = {"loss": loss, "gradient": math.hypot(*errors.values()) / norm, "parameter": relative[worst]}
    if not all(value <= tolerance[name] for name, value in differences.items()):
        texts = [f"{name} {value:.1e} ({tolerance[name]:.0e})" for name, value in differences.items()]
        raise ValueError(f"relative differences (tolerances): {', '.join(texts)}; parameter {worst}")
    tolerances = {f"{name}_tolerance": bound for name, bound in tolerance.items()}
    return {**differences, **tolerances, "worst_parameter": worst}


def check_no_waits(case: Case, hardware: HardwareConfig, device: torch.device) -> Result:
    """Take training steps while every call that waits for the GPU raises an error; a CPU takes them unwatched."""
    # Parts of a batch have another shape, which would be compiled again.
    hardware = hardware.model_copy(update={"gradient_accumulation_steps": 1 if hardware.compile else 2})
    trainer, batches = start(case, hardware, device)
    for _ in range(STEPS):  # Compiled, and with all that the first step makes.
        trainer.train_step(batches)
    watch = torch.cuda.set_sync_debug_mode if device.type == "cuda" else lambda _: None
    watch("error")
    try:
        for _ in range(STEPS):
            trainer.train_step(batches)
    finally:
        watch("default")
    trainer.state.history.require_finite(2 * STEPS)
    return {} if device.type == "cuda" else {"skipped": "needs a GPU"}


def check_samples(kind: str, vocab_size: int, device: torch.device) -> Result:
    """Compare sampled tokens with the CPU's, in float64. Kernels must be deterministic, as in stages that sample."""
    config = TransformerConfig(num_layers=1, num_heads=2, hidden_size=32)
    shape = Shape(config, vocab_size, (SAMPLE_LENGTH,), batch=2)

    def sample(where: torch.device) -> Tensor:
        denoiser = cast("Denoiser", build_perturbed_network(shape).double().to(where).eval())
        masks = torch.full((shape.batch, SAMPLE_LENGTH), vocab_size, device=where)
        sampler = build_grid_sampler(kind, SAMPLE_STEPS)
        examples = torch.arange(shape.batch, device=where)
        samples: Tensor = sampler(denoiser, Linear(), vocab_size, masks, CounterRNG(0, "gpu"), examples)
        return samples.cpu()

    equal = float((sample(device) == sample(CPU)).double().mean())
    if equal <= 0.9:
        raise ValueError(f"only {equal:.0%} of the tokens equal the CPU's")
    return {"equal_tokens": equal}
