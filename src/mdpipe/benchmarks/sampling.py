"""Speed and memory of samplers, from masks to samples, with a random transformer.

Shapes: B batch, L length, V vocabulary.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mdpipe.benchmarks.runner import Benchmark, Result, describe_machine
from mdpipe.benchmarks.settings import SamplingSettings
from mdpipe.benchmarks.training import standard_error, time_calls
from mdpipe.data.artifacts.files import atomic_write, write_json
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.networks.base import NetworkSpec, build_network, count_parameters
from mdpipe.networks.runtime import compute_device, configure_runtime
from mdpipe.networks.transformer import Transformer
from mdpipe.params import Params
from mdpipe.params.diffusion import LinearConfig
from mdpipe.params.networks import TransformerConfig
from mdpipe.params.sampling import SampleConfig, SamplerConfig
from mdpipe.pipeline.model_io import TrainedModel, load_model
from mdpipe.pipeline.sampling import CallCounter, all_masked, sample
from mdpipe.reporting.markdown import format_measurement
from mdpipe.training.performance import forward_flops, get_peak_memory_mib, measure_peak_flops

STEADY = ("ancestral_stepwise", "two_stage")
"""Samplers that run the whole network at every position in every step, whatever is masked: all steps cost the same."""
BASELINE = "ancestral_stepwise"
SCHEDULE = Linear(LinearConfig(epsilon=0.0))
"""Schedule with no token masked at time 0, so that a sampler on a grid takes exactly T steps."""


def measure(settings: SamplingSettings) -> Result:
    """Fill a batch of masks several times, each with its own noise, and return the means.

    The transformer has no time conditioning, and the schedule is linear. Where fewer steps are timed, seconds and
    network calls are scaled to all of them; `steps_measured` says how many there were.
    """
    configure_runtime(settings.threads)
    device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
    peak = measure_peak_flops(device, dtype)
    network = build_random_network(settings).to(device, dtype)
    memory_before = get_peak_memory_mib(device)
    masks = torch.full((settings.batch, settings.length), settings.vocab_size, device=device)
    examples = torch.arange(settings.batch, device=device)
    # All steps of a sampler without a grid are one per token. Of a steady sampler's T, a few are run, from time 1 to 0.
    total_steps = settings.length if settings.sampler == "first_hitting" else settings.steps
    steps = min(settings.steady_steps, total_steps) if settings.sampler in STEADY else total_steps

    def run_sampler(denoiser: CallCounter, tokens: Tensor, steps: int, stream: object) -> None:
        sampler, rng = build_grid_sampler(settings.sampler, steps), CounterRNG(settings.seed, f"bench/{stream}")
        sampler(denoiser, SCHEDULE, settings.vocab_size, tokens, rng, examples)

    # One mask per row in one step: every kernel runs once, with no more memory than later.
    first_masks = torch.zeros_like(masks)
    first_masks[:, 0] = settings.vocab_size
    run_sampler(CallCounter(cast("Denoiser", network)), first_masks, 1, "warm-up")
    denoiser = CallCounter(cast("Denoiser", network))
    seconds = time_calls(lambda repeat: run_sampler(denoiser, masks, steps, repeat), device, settings.repeats)
    flops_per_second = count_flops(denoiser, network, settings.length) / sum(seconds)
    scaled = [value * total_steps / steps for value in seconds]
    return {
        "tokens_per_second": masks.numel() / statistics.mean(scaled),
        "seconds": statistics.mean(scaled),
        "seconds_stderr": standard_error(scaled),
        "nfe": denoiser.calls * total_steps / steps / settings.repeats,
        "steps_measured": steps,
        "flops_per_second": flops_per_second,
        "peak_flops": peak,
        "mfu": flops_per_second / peak,
        "peak_mem_mib": get_peak_memory_mib(device),
        "peak_mem_mib_before": memory_before,
        "parameters": count_parameters(network),
    }


def compare(results: Sequence[Result]) -> list[Result]:
    """Add `times_stepwise`: tokens/s relative to `BASELINE` at the same batch, None where it has none."""
    baseline = {one["batch"]: one["tokens_per_second"] for one in results if one["sampler"] == BASELINE}

    def ratio(result: Result) -> float | None:
        return result["tokens_per_second"] / baseline[result["batch"]] if result["batch"] in baseline else None

    return [{**result, "times_stepwise": ratio(result)} for result in results]


BENCHMARK = Benchmark(
    measure=measure,
    heading="Speed of sampling",
    title="sampler {sampler} at batch {batch}",
    columns={
        "sampler": "{sampler}",
        "batch": "{batch}",
        "tokens/s": "{tokens_per_second:,.3g}",
        "x stepwise": "{times_stepwise:.3g}",
        "seconds": lambda result: format_measurement(result["seconds"], result["seconds_stderr"]),
        "NFE": "{nfe:,.0f}",
        "GFLOP/s": lambda result: f"{result['flops_per_second'] / 1e9:,.1f}",
        "MFU": "{mfu:.1%}",
        "peak MiB": "{peak_mem_mib:,.0f}",
        "MiB before": "{peak_mem_mib_before:,.0f}",
        "steps measured": "{steps_measured:,}",
    },
    compare=compare,
    page="""\
Sequences of {length:,} tokens from masks only, {steps:,} steps on the uniform grid, a vocabulary of {vocab_size:,}; \
a transformer of {num_layers} layers, {num_heads} heads and width {hidden_size} in {dtype} ({parameters:,} weights). \
The weights are random: time does not depend on their values.

{table}
ancestral_stepwise, two_stage and ancestral sample from the same distribution; first_hitting from its limit of many
steps. "x stepwise" is the speed relative to ancestral_stepwise at the same batch.
Seconds are for all steps of one batch: the mean of {repeats} batches and its standard error. Where fewer steps were \
measured, every step costs the same, whatever is masked: those steps, spread evenly from time 1 to 0, were timed and \
the seconds scaled to all.
FLOP/s count the dense products that were computed; MFU is relative to the matmul peak, the speed of a large matrix \
product in the same process. Memory is the largest resident set of a process that does nothing else (on a GPU, the \
most that its tensors took); "before" is the same without any sampling.
""",
)


def count_flops(counter: CallCounter, network: Transformer, length: int) -> int:
    """Return the operations of the dense products of all counted calls, where all rows have L tokens."""
    head = 2 * network.head.weight.numel()
    trunk = forward_flops(network, length) - length * head
    return counter.rows * trunk + counter.positions * head


def build_random_network(settings: SamplingSettings) -> Transformer:
    """Return a transformer with a random head: the usual initial head is zero, and all logits would be equal."""
    config = TransformerConfig(
        num_layers=settings.num_layers, num_heads=settings.num_heads, hidden_size=settings.hidden_size
    )
    built = build_network(NetworkSpec(config, settings.vocab_size, (settings.length,)), settings.seed)
    network = cast("Transformer", built)
    generator = torch.Generator().manual_seed(settings.seed)
    torch.nn.init.normal_(network.head.weight, std=settings.hidden_size**-0.5, generator=generator)
    return network.eval()


def build_grid_sampler(kind: str, steps: int) -> Sampler[Any]:
    """Return the sampler of this kind, with this many steps if it has a grid."""
    grid = {} if kind == "first_hitting" else {"steps": steps, "time_grid": "uniform"}
    return Sampler.build(SamplerConfig.parse({"kind": kind, **grid}))


DIGITS = 4
"""Significant digits of a speed in the file, more than its precision."""


def bench_samplers(params: Params, threads: int, repeats: int, out: Path) -> None:
    """Write the speeds of the samplers in the comparison of params.yaml, on the trained runs, to a CSV file.

    This is not a stage, since no artifact may depend on times, which differ between machines. The file is kept in git
    and shown in the report. The machine and the settings are written to the same name in .json.

    Raises:
        ValueError: `out` does not end in .csv, or a model is missing or broken.
    """
    import polars as pl  # Not above: a GPU node has neither of them.

    from mdpipe.reporting.schemas import SPEEDS

    if out.suffix != ".csv":
        raise ValueError(f"--out {out} must end in .csv; the machine is described under the same name in .json")
    machine = describe_machine(compute_device().type, threads)
    configure_runtime(threads)
    rows = [
        {
            "run": run,
            "sampler": config.kind,
            "steps": getattr(config, "steps", None),
            "num_parameters": trained.num_parameters,
            "tokens_per_second": _tokens_per_second(trained, SampleConfig(sampler=config), params, repeats),
        }
        for run, trained in ((run, load_model(run)) for run in params.samplers.runs)
        for config in params.samplers.samplers_for(params.runs[run].objective)
    ]
    atomic_write(out, pl.DataFrame(rows, schema=SPEEDS).write_csv().encode())
    write_json(out.with_suffix(".json"), {**machine, "repeats": repeats, "samples": params.samplers.count})


def _tokens_per_second(trained: TrainedModel, config: SampleConfig, params: Params, repeats: int) -> float:
    """Return the best speed of several repetitions, after one that warms up, with the samples moved to the CPU."""
    tokens = all_masked(trained, params.samplers.count)

    def run(_: int) -> None:
        sample(trained, config, tokens, CounterRNG(params.seed, "bench samplers"))

    _, *seconds = time_calls(run, torch.device("cpu"), 1 + repeats)  # Samples end on the CPU: no device to wait for.
    return float(f"{tokens.numel() / min(seconds):.{DIGITS}g}")
