"""The commands `mdpipe bench ...`: speed and memory on this machine. No artifact depends on them."""

import json
import shlex
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mdpipe.params import load_params
from mdpipe.pipeline.paths import COSTS, SPEEDS

if TYPE_CHECKING:
    from mdpipe.benchmarks.runner import Result

# ruff: noqa: B006 (typer reads defaults, which are never changed)

bench = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)

Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to measure.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Stem = Annotated[
    Path | None, typer.Option(metavar="STEM", help="Write STEM.json and STEM.md as well.", show_default=False)
]
Repeats = Annotated[int, typer.Option(min=1, help="How often each is timed.")]
OfTransformer = Annotated[int, typer.Option(min=1, help="Of the transformer.")]


def _measure(benchmark: str, options: dict[str, Any], device: str) -> "list[Result]":
    """Measure every combination of the options that are lists, print the results and write STEM.json and STEM.md.

    Args:
        benchmark: MODULE.CLASS in mdpipe.benchmarks.
        options: its settings, the slowest list first, and `as_json` and `out`.
        device: that is measured.
    """
    from mdpipe.benchmarks.runner import describe_machine, run, to_markdown, to_table
    from mdpipe.data.artifacts.files import atomic_write

    as_json, out = options.pop("as_json"), options.pop("out")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("--device cuda: torch finds no GPU on this machine; take cpu")
    module, _, name = benchmark.partition(".")
    kind = getattr(import_module(f"mdpipe.benchmarks.{module}"), name)
    lists = [value if isinstance(value, list) else [value] for value in options.values()]
    results = run([kind(**dict(zip(options, values, strict=True))) for values in product(*lists)])
    # First, because it names the commit, which is marked as changed once another file in git is.
    machine, command = describe_machine(device, options.get("threads", 1)), shlex.join(["mdpipe", *sys.argv[1:]])
    document = json.dumps({"command": command, "machine": machine, "results": results}, indent=2) + "\n"
    if out is not None:
        atomic_write(out.with_name(f"{out.name}.json"), document.encode())
        atomic_write(out.with_name(f"{out.name}.md"), to_markdown(kind, machine, command, results).encode())
    typer.echo(document if as_json else to_table(results, kind.columns), nl=False)
    return results


@bench.command()
def sample(
    batch: Annotated[list[int], typer.Option(min=1, help="Samples at a time; may be given several times.")] = [1, 8],
    sampler: Annotated[
        list[str],
        typer.Option(help="ancestral, ancestral_stepwise, two_stage or first_hitting; several."),
    ] = ["ancestral", "ancestral_stepwise"],
    length: Annotated[int, typer.Option(min=1, help="Tokens of a sample.")] = 1024,
    vocab_size: Annotated[int, typer.Option(min=1, help="Tokens to choose from.")] = 50257,
    steps: Annotated[int, typer.Option(min=1, help="Steps from masks to samples.")] = 1000,
    steady_steps: Annotated[
        int, typer.Option(min=1, help="Steps to run of a sampler whose steps all cost the same.")
    ] = 10,
    num_layers: OfTransformer = 4,
    num_heads: OfTransformer = 4,
    hidden_size: OfTransformer = 128,
    repeats: Repeats = 3,
    threads: Threads = 1,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the network: float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and samples.")] = 0,
    as_json: AsJson = False,
    out: Stem = None,
) -> None:
    """Measure sampling from masks with a random transformer: each sampler and batch in a separate process."""
    _measure("sampling.SamplingBenchmark", locals(), device)


@bench.command()
def train(
    shape: Annotated[list[str], typer.Option(help="A network and its data, see above; several.")] = ["text8-11m"],
    batch: Annotated[
        list[int], typer.Option(min=0, help="Examples per step; 0 for the shape's; several.", show_default=False)
    ] = [0],
    precision: Annotated[list[str], typer.Option(help="float32 or bfloat16; several.")] = ["float32"],
    objective: Annotated[str, typer.Option(help="md4 or genmd4.")] = "md4",
    optimizer: Annotated[list[str], typer.Option(help="adamw, muon or normuon; several.")] = ["adamw"],
    compile: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="With layers that keep only their input.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps timed.")] = 10,
    warm_up: Annotated[int, typer.Option(min=1, help="Steps before them.")] = 3,
    threads: Threads = 1,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and tokens.")] = 0,
    as_json: AsJson = False,
    out: Stem = None,
) -> None:
    """Measure training on random tokens: each shape, batch, precision and optimizer in a separate process.

    Shapes: chars as in the default suite; text8, gpt2-small, cifar10 and imagenet64 as in the paper; text8-11m and
    cifar10-small for a small machine.
    """
    _measure("training.TrainingBenchmark", locals(), device)


@bench.command()
def data(
    size: Annotated[list[int], typer.Option(min=1, help="MB of JSON lines; may be given several times.")] = [2000],
    tokenizer: Annotated[list[str], typer.Option(help="bytes, text8, sentencepiece or gpt2; several.")] = ["bytes"],
    workers: Annotated[list[int], typer.Option(min=1, help="Processes that read and encode; several.")] = [1],
    kill: Annotated[bool, typer.Option("--kill", help="Encode once more, kill it halfway and run it again.")] = False,
    path: Annotated[str | None, typer.Option(help="The folder of GPT-2's vocab.json and merges.txt.")] = None,
    folder: Annotated[str | None, typer.Option(help="Where all files are written, and kept.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of text, splits and batches.")] = 0,
    as_json: AsJson = False,
    out: Stem = None,
) -> None:
    """Measure data preparation, from synthetic text to training batches: each size, tokenizer and number of workers."""
    _measure("data.DataBenchmark", locals(), "cpu")


@bench.command()
def samplers(
    threads: Threads = 1,
    repeats: Repeats = 3,
    out: Annotated[Path, typer.Option(help="CSV to write; a .json next to it describes the machine.")] = SPEEDS,
) -> None:
    """Measure the samplers of the comparison in params.yaml on the trained runs, for its column tokens/s."""
    from mdpipe.benchmarks.runner import describe_machine
    from mdpipe.benchmarks.sampling import bench_samplers
    from mdpipe.stages.model_io import compute_device

    bench_samplers(load_params(), describe_machine(compute_device().type, threads), threads, repeats, out)
    typer.echo(out.read_text(), nl=False)


@bench.command()
def stages(
    threads: Threads = 1,
    folder: Annotated[Path, typer.Option(help="Snakemake's measurements.")] = Path("benchmarks"),
    out: Annotated[Path, typer.Option(help="JSON to write.")] = COSTS,
) -> None:
    """Collect time and memory of every stage that Snakemake ran, with machine, commit and date, for the report."""
    from mdpipe.benchmarks.runner import describe_machine
    from mdpipe.benchmarks.stages import collect_stages
    from mdpipe.data.artifacts.files import atomic_write
    from mdpipe.stages.model_io import compute_device

    params = load_params()
    day, results = collect_stages(params, folder)
    machine = describe_machine(compute_device().type, threads)
    recorded = {"date": day, "params": params.md5, "machine": machine, "results": results}
    document = json.dumps(recorded, indent=2) + "\n"
    atomic_write(out, document.encode())
    typer.echo(document, nl=False)


@bench.command()
def likelihood(
    run: Annotated[list[str], typer.Option(help="A trained run; several.")] = ["chars_md4", "digits", "photos"],
    calls: Annotated[list[int], typer.Option(min=1, help="Network calls per example; several.")] = [4, 16],
    examples: Annotated[int, typer.Option(min=2, help="Examples of the test split.")] = 16,
    repeats: Annotated[int, typer.Option(min=2, help="Seeds.")] = 6,
    threads: Threads = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    as_json: AsJson = False,
    out: Stem = None,
) -> None:
    """Measure the variance of every estimator of the likelihood bound, at equal network calls, on trained runs.

    With --out, STEM.csv and STEM.svg are written as well.
    """
    import polars as pl

    from mdpipe.benchmarks.likelihood import ESTIMATORS, to_svg
    from mdpipe.data.artifacts.files import atomic_write
    from mdpipe.stages.model_io import compute_device

    options = {"run": run, "num_mc_samples": calls, "estimator": [*ESTIMATORS], "examples": examples}
    options |= {"repeats": repeats, "threads": threads, "seed": seed, "as_json": as_json, "out": out}
    results = _measure("likelihood.LikelihoodBenchmark", options, compute_device().type)
    if out is not None:
        atomic_write(out.with_name(f"{out.name}.csv"), pl.DataFrame(results).write_csv(float_precision=6).encode())
        atomic_write(out.with_name(f"{out.name}.svg"), to_svg(results).encode())
