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
from typing import cast

import torch
from torch import Tensor, nn

from mdpipe.benchmarks.gpu.report import Report, Row, free_memory
from mdpipe.benchmarks.gpu.sizes import OBJECTIVES, Check
from mdpipe.benchmarks.training import Hardware, Shape, Train, build_step, transformer_shape
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.build import build_objective, objective_class
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.build import build_sampler
from mdpipe.diffusion.schedules.linear import Linear
from mdpipe.networks.base import Network
from mdpipe.training.distributed import LOCAL_RANK, WORLD_SIZE, World, full_tensor, init_distributed
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.performance import find_compiler_problem

STEPS = 3
"""Compared; the second and third also depend on the optimizer."""
STRATEGIES = ("ddp", "fsdp")
NEEDS_GPU = "needs a GPU"
SAMPLE_LENGTH, SAMPLE_STEPS = 16, 4
NOISE_OF_WEIGHTS = 0.02
"""Standard deviation of the noise added to all initial weights: zero heads and branches would hide their gradients."""


@dataclass(frozen=True)
class Tolerance:
    """The largest relative differences from the reference that pass."""

    loss: float
    """Of any of the losses."""
    gradient: float
    """Of the whole gradient, ||g - g'|| / ||g'||."""
    parameter: float
    """Of any parameter's gradient, ||g - g'|| / (||g'|| + 0.001 of the whole gradient's norm)."""


FLOAT32 = Tolerance(loss=1e-4, gradient=1e-4, parameter=1e-3)
TF32 = Tolerance(loss=1e-3, gradient=1e-2, parameter=5e-2)
BFLOAT16 = Tolerance(loss=2e-3, gradient=4e-2, parameter=1e-1)


@dataclass(frozen=True)
class Variant:
    """A way of computing the same training run."""

    precision: str = "float32"
    compile: bool = False
    recompute: bool = False
    tf32: bool = False
    """Whether float32 convolutions may round their inputs to TF32, as torch's default is on a GPU."""
    strategy: str = "ddp"

    @property
    def tolerance(self) -> Tolerance:
        """Return the differences that rounding may cause."""
        if self.precision == "bfloat16":
            return BFLOAT16
        return TF32 if self.tf32 else FLOAT32


@dataclass(frozen=True)
class Trace:
    """The numbers that a short training run computed."""

    losses: list[float]
    gradients: dict[str, Tensor]
    """Of the first step, after clipping."""


def run(report: Report) -> None:
    """Compare eager variants, look for waits, compare samples, and then compiled variants, which take longest."""
    checks, references = report.sizes.checks, record_references(report)
    variants = {
        "float32": Variant(),
        "bfloat16": Variant("bfloat16"),
        "float32, recompute": Variant(recompute=True),
    }
    for name, check in checks.items():
        for title, variant in variants.items():
            compare(report, {"check": name, "variant": title}, check, variant, references[name])
        if report.device.type == "cuda" and check.shape.kind != "transformer":
            compare(report, {"check": name, "variant": "float32, TF32"}, check, Variant(tf32=True), references[name])
    for objective in OBJECTIVES:
        labels = {"check": f"no step waits, {objective}", "variant": "float32"}
        look_for_waits(report, labels, Check(checks["transformer, md4"].shape, objective), Variant())
    for name in ("unet, md4", "uvit, md4"):
        labels = {"check": f"no step waits, {name}", "variant": "bfloat16"}
        look_for_waits(report, labels, checks[name], Variant("bfloat16"))
    vocabulary = report.sizes.sampled_vocabulary
    for kind in ("ancestral", "reveal_first"):
        report.attempt(
            {"check": f"sampler {kind}", "variant": "float64"},
            partial(compare_samples, report.device, kind, vocabulary),
        )
    compare_compiled(report, references)


def run_parallel(report: Report) -> None:
    """Compare each strategy, in float32 and eager, then as presets for several GPUs train: compiled, in bfloat16."""
    checks, references = report.sizes.checks, record_references(report)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {WORLD_SIZE: "1", "RANK": "0", LOCAL_RANK: "0", "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with init_distributed() as world:
        for name, check in checks.items():
            for strategy in STRATEGIES:
                labels = {"check": name, "variant": f"float32, {strategy}"}
                compare(report, labels, check, Variant(strategy=strategy), references[name], world)
        if not report.sizes.compile or find_compiler_problem(report.device):
            return
        for strategy in STRATEGIES:
            free_memory()
            name, variant = "transformer, md4", Variant("bfloat16", compile=True, strategy=strategy)
            labels = {"check": name, "variant": f"bfloat16, compiled, {strategy}"}
            compare(report, labels, checks[name], variant, references[name], world, seconds=10)


def record_references(report: Report) -> dict[str, Trace]:
    """Train every check on the CPU in float32, without a group."""
    cpu, threads = torch.device("cpu"), report.sizes.threads
    return {name: record_trace(check, Variant(), cpu, threads) for name, check in report.sizes.checks.items()}


def compare_compiled(report: Report, references: dict[str, Trace]) -> None:
    """Compare compiled variants while there is time."""
    checks = report.sizes.checks
    problem = find_compiler_problem(report.device)
    for name, precision in report.sizes.compiled_checks:
        labels, variant = {"check": name, "variant": f"{precision}, compiled"}, Variant(precision, compile=True)
        if problem:
            report.add({**labels, "skipped": f"no compiler works here: {problem}"})
            continue
        free_memory()
        compare(report, labels, checks[name], variant, references[name], seconds=20)
        look_for_waits(report, {**labels, "check": f"no step waits, {name}"}, checks[name], variant, seconds=20)


def compare(
    report: Report,
    labels: Row,
    check: Check,
    variant: Variant,
    reference: Trace,
    world: World = World(),  # noqa: B008 (frozen)
    seconds: float = 0,
) -> None:
    """Add a row with the differences between a variant on the device and the reference."""

    def measure() -> Row:
        found = record_trace(check, variant, report.device, report.sizes.threads, world)
        return compare_traces(found, reference, variant.tolerance)

    report.attempt(labels, measure, seconds)


def record_trace(
    check: Check,
    variant: Variant,
    device: torch.device,
    threads: int,
    world: World = World(),  # noqa: B008 (frozen)
) -> Trace:
    """Train for a few steps."""
    step, batches = prepare(check, variant, device, threads, world=world)
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
    threads: int,
    *,
    micro_batches: int = 1,
    world: World = World(),  # noqa: B008 (frozen)
) -> tuple[Trainer, Batches]:
    """Return the step of a new training run of a small network, and its batches."""
    shape = check.shape
    network = build_perturbed_network(shape, causal=objective_class(check.objective).is_causal)
    objective = build_check_objective(check)
    hardware = Hardware(
        variant.precision,
        threads,
        strategy=variant.strategy,
        micro_batches=micro_batches,
        compile=variant.compile,
        recompute=variant.recompute,
    )
    train = Train(steps=2 * STEPS, batch_size=shape.batch, learning_rate=1e-3)
    step = build_step(network.to(device), objective, train, hardware, CounterRNG(0, "gpu"), world)
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


def build_check_objective(check: Check) -> Objective:
    """Return the objective of a check."""
    return build_objective(check.objective, check.shape.vocabulary, **OBJECTIVES[check.objective])


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


def compare_traces(found: Trace, reference: Trace, tolerance: Tolerance) -> Row:
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


def look_for_waits(report: Report, labels: Row, check: Check, variant: Variant, seconds: float = 0) -> None:
    """Add a row that says whether a training step makes a synchronizing call."""
    if report.device.type != "cuda":
        report.add({**labels, "skipped": NEEDS_GPU})
        return

    def measure() -> Row:
        parts = 1 if variant.compile else 2  # Parts of a batch have another shape, which would be compiled again.
        step, batches = prepare(check, variant, report.device, report.sizes.threads, micro_batches=parts)
        for _ in range(STEPS):  # Compiled, and with all that the first step makes.
            step.train_step(batches)
        with forbid_waits():
            for _ in range(STEPS):
                step.train_step(batches)
        step.state.history.require_finite(2 * STEPS)
        return {"passed": True}

    report.attempt(labels, measure, seconds)


@contextmanager
def forbid_waits() -> Iterator[None]:
    """Have every call that waits for the GPU raise an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compare_samples(device: torch.device, kind: str, vocabulary: int) -> Row:
    """Return which fraction of sampled tokens equals the CPU's, in float64.

    Kernels have to be deterministic, as in the stages that sample.
    """
    shape = transformer_shape(1, 2, 32, vocabulary, SAMPLE_LENGTH, 2, time_conditioning=False)

    def sample(where: torch.device) -> Tensor:
        denoiser = cast("Denoiser", build_perturbed_network(shape).double().to(where).eval())
        masks = torch.full((shape.batch, SAMPLE_LENGTH), vocabulary, device=where)
        sampler = build_sampler(kind, steps=SAMPLE_STEPS, grid="uniform")
        examples = torch.arange(shape.batch, device=where)
        samples: Tensor = sampler(denoiser, Linear(), vocabulary, masks, CounterRNG(0, "gpu"), examples)
        return samples.cpu()

    equal = float((sample(device) == sample(torch.device("cpu"))).double().mean())
    return {"equal_tokens": equal, "passed": equal > 0.9}
