"""Check that training on a GPU computes what it computes on a CPU, and that no step waits for the device.

Losses of a few training steps, and the gradient of the first, are compared with those of a CPU in float32. DDP and
FSDP2 in a group of one process must train what a process without a group trains on a CPU.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import cast

import torch
from torch import Tensor, nn

from mdpipe.benchmarks.gpu import NO_COMPILER, Report, free_memory, run_part
from mdpipe.benchmarks.runner import Result
from mdpipe.benchmarks.training import Shape
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import build_sampler
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.networks.base import Network
from mdpipe.params.diffusion import GenMD4Config, MD4Config, ObjectiveConfig
from mdpipe.params.networks import TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.sampling import SamplerConfig
from mdpipe.params.training import HardwareConfig, TrainConfig
from mdpipe.training.distributed import LOCAL_RANK, WORLD_SIZE, World, full_tensor, init_distributed
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.performance import find_compiler_problem

STEPS = 3
"""Compared; the second and third also depend on the optimizer."""
EAGER = HardwareConfig()
STRATEGIES = (EAGER, HardwareConfig(strategy="fsdp"))
NEEDS_GPU = "needs a GPU"
SAMPLE_LENGTH, SAMPLE_STEPS = 16, 4
NOISE_OF_WEIGHTS = 0.02
"""Standard deviation of the noise added to all initial weights: zero heads and branches would hide their gradients."""


@dataclass(frozen=True)
class Check:
    """A small training run whose losses and gradients are compared."""

    shape: Shape
    objective: ObjectiveConfig


def build_checks(text: Shape, unet: Shape, uvit: Shape) -> dict[str, Check]:
    """Return the checks: every network, and both objectives that train with masks."""
    return {
        "transformer, md4": Check(text, MD4Config()),
        "transformer, genmd4": Check(text, GenMD4Config()),
        "unet, md4": Check(unet, MD4Config()),
        "uvit, md4": Check(uvit, MD4Config()),
    }


TRANSFORMER = TransformerConfig(num_layers=2, num_heads=2, hidden_size=128, time_conditioning=True, dropout=0.1)
UNET = UNetConfig(hidden_size=32, num_blocks=2, time_conditioning=True, dropout=0.1)
UVIT = UViTConfig(
    hidden_size=32,
    num_blocks=1,
    transformer_width=64,
    num_layers=2,
    num_heads=2,
    time_conditioning=True,
    dropout=0.1,
)
FULL = build_checks(
    Shape(TRANSFORMER, 27, (64,), 8), Shape(UNET, 256, (16, 16, 3), 4), Shape(UVIT, 256, (16, 16, 3), 4)
)
TINY = build_checks(
    Shape(TRANSFORMER.model_copy(update={"num_layers": 1, "hidden_size": 16}), 11, (8,), 4),
    Shape(UNET.model_copy(update={"num_blocks": 1, "hidden_size": 8}), 256, (4, 4, 3), 2),
    Shape(UVIT.model_copy(update={"transformer_width": 16, "hidden_size": 8}), 256, (4, 4, 3), 2),
)
COMPILED_ORDER = ("transformer, md4", "uvit, md4", "unet, md4", "transformer, genmd4")
"""Checks whose networks are compiled, the most important first, since compiling takes long."""


@dataclass(frozen=True)
class Tolerance:
    """The largest relative differences from the reference that pass."""

    loss: float
    """Bound on the relative error of any loss."""
    gradient: float
    """Bound for the whole gradient, ||g - g'|| / ||g'||."""
    parameter: float
    """Bound for any parameter's gradient, ||g - g'|| / (||g'|| + 0.001 of the whole gradient's norm)."""


FLOAT32 = Tolerance(loss=1e-4, gradient=1e-4, parameter=1e-3)
TF32 = Tolerance(loss=1e-3, gradient=1e-2, parameter=5e-2)
BFLOAT16 = Tolerance(loss=2e-3, gradient=4e-2, parameter=1e-1)


@dataclass(frozen=True)
class Variant:
    """A way of computing the same training run."""

    hardware: HardwareConfig = EAGER
    tf32: bool = False
    """True if float32 convolutions may round their inputs to TF32, torch's default on a GPU."""

    @property
    def tolerance(self) -> Tolerance:
        """Return the differences that rounding may cause."""
        if self.hardware.precision == "bfloat16":
            return BFLOAT16
        return TF32 if self.tf32 else FLOAT32


@dataclass(frozen=True)
class Trace:
    """The numbers that a short training run computed."""

    losses: list[float]
    gradients: dict[str, Tensor]
    """Gradients of the first step, after clipping."""


def get_checks(report: Report) -> dict[str, Check]:
    """Return the checks of a full run or of a rehearsal."""
    return TINY if report.tiny else FULL


def run_correctness(report: Report) -> None:
    """Compare eager variants, look for waits, compare samples, and then compiled variants, which take longest."""
    checks, references = get_checks(report), record_references(report)
    bfloat16 = Variant(HardwareConfig(precision="bfloat16"))
    variants = {
        "float32": Variant(),
        "bfloat16": bfloat16,
        "float32, activation checkpointing": Variant(HardwareConfig(activation_checkpointing=True)),
    }
    for name, check in checks.items():
        for title, variant in variants.items():
            compare(report, {"check": name, "variant": title}, check, variant, references[name])
        if report.device.type == "cuda" and check.shape.network.kind != "transformer":
            compare(report, {"check": name, "variant": "float32, TF32"}, check, Variant(tf32=True), references[name])
    for kind in ObjectiveConfig.kinds:
        labels = {"check": f"no step waits, {kind}", "variant": "float32"}
        check = Check(checks["transformer, md4"].shape, ObjectiveConfig.parse(kind))
        look_for_waits(report, labels, check, Variant())
    for name in ("unet, md4", "uvit, md4"):
        labels = {"check": f"no step waits, {name}", "variant": "bfloat16"}
        look_for_waits(report, labels, checks[name], bfloat16)
    vocab_size = 500 if report.tiny else 50257
    for kind in ("ancestral_stepwise", "ancestral"):
        report.attempt(
            {"check": f"sampler {kind}", "variant": "float64"},
            partial(compare_samples, report.device, kind, vocab_size),
        )
    compare_compiled(report, references)


def run_parallel(report: Report) -> None:
    """Compare each strategy, in float32 and eager, then as presets for several GPUs train: compiled, in bfloat16."""
    checks, references = get_checks(report), record_references(report)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {WORLD_SIZE: "1", "RANK": "0", LOCAL_RANK: "0", "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with init_distributed() as world:
        for name, check in checks.items():
            for hardware in STRATEGIES:
                labels = {"check": name, "variant": f"float32, {hardware.strategy}"}
                compare(report, labels, check, Variant(hardware), references[name], world)
        problem = find_compiler_problem(report.device)
        for hardware in STRATEGIES:
            name = "transformer, md4"
            compiled = Variant(hardware.model_copy(update={"precision": "bfloat16", "compile": True}))
            labels = {"check": name, "variant": f"bfloat16, compiled, {hardware.strategy}"}
            if problem:
                report.add({**labels, "skipped": f"{NO_COMPILER}: {problem}"})
                continue
            free_memory()
            compare(report, labels, checks[name], compiled, references[name], world, seconds=10)


def record_references(report: Report) -> dict[str, Trace]:
    """Train every check on the CPU in float32, without a group."""
    cpu = torch.device("cpu")
    return {name: record_trace(check, Variant(), cpu) for name, check in get_checks(report).items()}


def compare_compiled(report: Report, references: dict[str, Trace]) -> None:
    """Compare compiled variants while there is time."""
    checks = get_checks(report)
    problem = find_compiler_problem(report.device)
    for hardware, name in product((EAGER, HardwareConfig(precision="bfloat16")), COMPILED_ORDER):
        variant = Variant(hardware.model_copy(update={"compile": True}))
        labels = {"check": name, "variant": f"{hardware.precision}, compiled"}
        if problem:
            report.add({**labels, "skipped": f"{NO_COMPILER}: {problem}"})
            continue
        free_memory()
        compare(report, labels, checks[name], variant, references[name], seconds=20)
        look_for_waits(report, {**labels, "check": f"no step waits, {name}"}, checks[name], variant, seconds=20)


def compare(
    report: Report,
    labels: Result,
    check: Check,
    variant: Variant,
    reference: Trace,
    world: World = World(),  # noqa: B008 (frozen)
    seconds: float = 0,
) -> None:
    """Add a row with the differences between a variant on the device and the reference."""

    def measure() -> Result:
        found = record_trace(check, variant, report.device, world)
        return compare_traces(found, reference, variant.tolerance)

    report.attempt(labels, measure, seconds)


def record_trace(
    check: Check,
    variant: Variant,
    device: torch.device,
    world: World = World(),  # noqa: B008 (frozen)
) -> Trace:
    """Train for a few steps."""
    step, batches = prepare(check, variant, device, world=world)
    gradients = {}
    with allow_tf32(tf32=variant.tf32):
        for index in range(STEPS):
            step.train_step(batches)
            if index == 0:
                gradients = {
                    name: full_tensor(parameter.grad).detach().float().to("cpu", copy=True)
                    for name, parameter in named_parameters(step)
                    if parameter.grad is not None
                }
    return Trace(step.state.history.state_dict()["losses"][:STEPS].tolist(), gradients)


def prepare(
    check: Check,
    variant: Variant,
    device: torch.device,
    *,
    gradient_accumulation_steps: int = 1,
    world: World = World(),  # noqa: B008 (frozen)
) -> tuple[Trainer, Batches]:
    """Return the step of a new training run of a small network, and its batches."""
    shape = check.shape
    network = build_perturbed_network(shape, causal=check.objective.is_causal)
    objective = build_objective(check.objective, shape.vocab_size)
    hardware = variant.hardware.model_copy(update={"gradient_accumulation_steps": gradient_accumulation_steps})
    train = TrainConfig(steps=2 * STEPS, batch_size=shape.batch, learning_rate=1e-3, warmup_steps=0)
    step = Trainer.build(network.to(device), objective, train, hardware, CounterRNG(0, "gpu"), world)
    tokens = shape.random_tokens(shape.batch, seed=0)
    return step, lambda _, rows: Batch(tokens[rows.start : rows.stop])


def build_perturbed_network(shape: Shape, *, causal: bool = False) -> Network:
    """Return a network on the CPU that has no zero weights."""
    network = shape.build_network(seed=0, causal=causal)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(NOISE_OF_WEIGHTS * torch.randn(parameter.shape, generator=generator))
    return network


def named_parameters(step: Trainer) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of network and objective."""
    yield from step.state.network.named_parameters()
    for name, parameter in step.state.objective.named_parameters():
        yield f"objective.{name}", parameter


@contextmanager
def allow_tf32(*, tf32: bool) -> Iterator[None]:
    """Let float32 convolutions of a GPU round their inputs to TF32, or not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def compare_traces(found: Trace, reference: Trace, tolerance: Tolerance) -> Result:
    """Return the relative differences, their tolerances, and whether all pass."""
    expected = torch.tensor(reference.losses, dtype=torch.float64)
    losses = float(((torch.tensor(found.losses, dtype=torch.float64) - expected) / expected).abs().max())
    if found.gradients.keys() != reference.gradients.keys():
        raise ValueError(f"gradients differ in {sorted(found.gradients.keys() ^ reference.gradients.keys())}")
    errors = {name: float((found.gradients[name] - g).norm()) for name, g in reference.gradients.items()}
    norms = {name: float(gradient.norm()) for name, gradient in reference.gradients.items()}
    norm = sum(value**2 for value in norms.values()) ** 0.5
    gradient = sum(error**2 for error in errors.values()) ** 0.5 / norm
    relative = {name: error / (norms[name] + 1e-3 * norm) for name, error in errors.items()}
    worst = max(relative, key=lambda name: relative[name])
    return {
        "loss": losses,
        "loss_tolerance": tolerance.loss,
        "gradient": gradient,
        "gradient_tolerance": tolerance.gradient,
        "parameter": relative[worst],
        "parameter_tolerance": tolerance.parameter,
        "worst_parameter": worst,
        "passed": losses <= tolerance.loss
        and gradient <= tolerance.gradient
        and relative[worst] <= tolerance.parameter,
    }


def look_for_waits(report: Report, labels: Result, check: Check, variant: Variant, seconds: float = 0) -> None:
    """Add a row that says whether a training step makes a synchronizing call; a CPU takes the steps unwatched."""

    def measure() -> Result:
        parts = (
            1 if variant.hardware.compile else 2
        )  # Parts of a batch have another shape, which would be compiled again.
        step, batches = prepare(check, variant, report.device, gradient_accumulation_steps=parts)
        for _ in range(STEPS):  # Compiled, and with all that the first step makes.
            step.train_step(batches)
        with forbid_waits(report.device):
            for _ in range(STEPS):
                step.train_step(batches)
        step.state.history.require_finite(2 * STEPS)
        return {"passed": True} if report.device.type == "cuda" else {"skipped": NEEDS_GPU}

    report.attempt(labels, measure, seconds)


@contextmanager
def forbid_waits(device: torch.device) -> Iterator[None]:
    """Have every call that waits for the GPU raise an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compare_samples(device: torch.device, kind: str, vocab_size: int) -> Result:
    """Return which fraction of sampled tokens equals the CPU's, in float64.

    Kernels have to be deterministic, as in the stages that sample.
    """
    config = TransformerConfig(num_layers=1, num_heads=2, hidden_size=32)
    shape = Shape(config, vocab_size, (SAMPLE_LENGTH,), batch=2)

    def sample(where: torch.device) -> Tensor:
        denoiser = cast("Denoiser", build_perturbed_network(shape).double().to(where).eval())
        masks = torch.full((shape.batch, SAMPLE_LENGTH), vocab_size, device=where)
        sampler = build_sampler(SamplerConfig.parse({"kind": kind, "steps": SAMPLE_STEPS, "time_grid": "uniform"}))
        examples = torch.arange(shape.batch, device=where)
        samples: Tensor = sampler(denoiser, Linear(), vocab_size, masks, CounterRNG(0, "gpu"), examples)
        return samples.cpu()

    equal = float((sample(device) == sample(torch.device("cpu"))).double().mean())
    return {"equal_tokens": equal, "passed": equal > 0.9}


if __name__ == "__main__":
    run_part({"correctness": run_correctness, "parallel": run_parallel})
