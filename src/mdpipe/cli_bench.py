"""The commands `mdpipe bench ...`: speed and memory on this machine. No artifact depends on them."""

import json
import shlex
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mdpipe.console import report_errors
from mdpipe.params import load_params
from mdpipe.pipeline.paths import COSTS, SPEEDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mdpipe.benchmarks.runner import Columns, Result

bench = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)

Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to measure.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Stem = Annotated[
    Path | None, typer.Option(metavar="STEM", help="Write STEM.json and STEM.md as well.", show_default=False)
]
Repeats = Annotated[int, typer.Option(min=1, help="How often each is timed.")]


@bench.command()
def sample(
    sampler: Annotated[
        list[str],
        typer.Option(help="ancestral, ancestral_stepwise, two_stage or first_hitting; several."),
    ] = ["ancestral", "ancestral_stepwise"],  # noqa: B006 (typer reads the default, which is never changed)
    batch: Annotated[list[int], typer.Option(help="Samples at a time; may be given several times.")] = [1, 8],  # noqa: B006
    length: Annotated[int, typer.Option(help="Tokens of a sample.")] = 1024,
    vocab_size: Annotated[int, typer.Option(help="Tokens to choose from.")] = 50257,
    steps: Annotated[int, typer.Option(help="Steps from masks to samples.")] = 1000,
    steady_steps: Annotated[int, typer.Option(help="Steps to run of a sampler whose steps all cost the same.")] = 10,
    num_layers: Annotated[int, typer.Option(help="Of the transformer.")] = 4,
    num_heads: Annotated[int, typer.Option(help="Of the transformer.")] = 4,
    hidden_size: Annotated[int, typer.Option(help="Of the transformer.")] = 128,
    repeats: Repeats = 3,
    threads: Threads = 1,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the network: float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and samples.")] = 0,
    as_json: AsJson = False,
    out: Stem = None,
) -> None:
    """Measure sampling from masks with a random transformer: each sampler and batch in a separate process."""
    with report_errors():
        from mdpipe.benchmarks.runner import run_in_subprocess
        from mdpipe.benchmarks.sampling import COLUMNS, SamplingBenchmark, add_ratios, to_markdown

        _require_device(device)
        benchmarks = [
            SamplingBenchmark(
                sampler=kind,
                batch=size,
                length=length,
                vocab_size=vocab_size,
                steps=steps,
                steady_steps=steady_steps,
                num_layers=num_layers,
                num_heads=num_heads,
                hidden_size=hidden_size,
                repeats=repeats,
                threads=threads,
                device=device,
                dtype=dtype,
                seed=seed,
            )
            for size, kind in product(batch, sampler)
        ]
        results = add_ratios([run_in_subprocess(benchmark) for benchmark in benchmarks])
        _print_results(results, COLUMNS, to_markdown, device, threads, as_json, out)


@bench.command()
def train(
    shape: Annotated[list[str], typer.Option(help="A network and its data, see above; several.")] = ["text8-11m"],  # noqa: B006
    precision: Annotated[list[str], typer.Option(help="float32 or bfloat16; several.")] = ["float32"],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="Examples per step, instead of the shape's; several.")] = [],  # noqa: B006
    objective: Annotated[str, typer.Option(help="md4 or genmd4.")] = "md4",
    optimizer: Annotated[list[str], typer.Option(help="adamw, muon or normuon; several.")] = ["adamw"],  # noqa: B006
    compile: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="With layers that keep only their input.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Steps timed.")] = 10,
    warm_up: Annotated[int, typer.Option(help="Steps before them.")] = 3,
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
    with report_errors():
        from mdpipe.benchmarks.runner import run_in_subprocess
        from mdpipe.benchmarks.training import COLUMNS, SHAPES, TrainingBenchmark, to_markdown

        _require_device(device)
        benchmarks = [
            TrainingBenchmark(
                shape=name,
                batch=size,
                objective=objective,
                optimizer=method,
                precision=kind,
                compile=compile,
                activation_checkpointing=activation_checkpointing,
                steps=steps,
                warm_up=warm_up,
                threads=threads,
                device=device,
                seed=seed,
            )
            for name in shape
            for size in batch or [SHAPES[name].batch if name in SHAPES else 1]
            for kind in precision
            for method in optimizer
        ]
        results = [run_in_subprocess(benchmark) for benchmark in benchmarks]
        _print_results(results, COLUMNS, to_markdown, device, threads, as_json, out)


@bench.command()
def data(
    size: Annotated[list[int], typer.Option(help="MB of JSON lines; may be given several times.")] = [2000],  # noqa: B006
    tokenizer: Annotated[list[str], typer.Option(help="bytes, text8, sentencepiece or gpt2; several.")] = ["bytes"],  # noqa: B006
    workers: Annotated[list[int], typer.Option(help="Processes that read and encode; several.")] = [1],  # noqa: B006
    kill: Annotated[bool, typer.Option("--kill", help="Encode once more, kill it halfway and run it again.")] = False,
    path: Annotated[str | None, typer.Option(help="The folder of GPT-2's vocab.json and merges.txt.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where all files are written, and kept.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of text, splits and batches.")] = 0,
    as_json: AsJson = False,
    out: Stem = None,
) -> None:
    """Measure data preparation, from synthetic text to training batches: each size, tokenizer and number of workers."""
    with report_errors():
        from mdpipe.benchmarks.data import COLUMNS, DataBenchmark, add_same_bytes, to_markdown

        benchmarks = [
            DataBenchmark(
                size=megabytes,
                tokenizer=kind,
                workers=count,
                kill=kill,
                seed=seed,
                path=path,
                folder=None if folder is None else str(folder),
            )
            for megabytes, kind, count in product(size, tokenizer, workers)
        ]
        results = add_same_bytes([{**asdict(one), **one.measure()} for one in benchmarks])
        _print_results(results, COLUMNS, to_markdown, "cpu", 1, as_json, out)


@bench.command()
def samplers(
    threads: Threads = 1,
    repeats: Repeats = 3,
    out: Annotated[Path, typer.Option(help="CSV to write; a .json next to it describes the machine.")] = SPEEDS,
) -> None:
    """Measure the samplers of the comparison in params.yaml on the trained runs, for its column tokens/s."""
    with report_errors():
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
    with report_errors():
        from mdpipe.benchmarks.runner import describe_machine
        from mdpipe.benchmarks.stages import collect_stages
        from mdpipe.data.artifacts.files import atomic_write
        from mdpipe.stages.model_io import compute_device

        params = load_params()
        day, results = collect_stages(params, folder)
        machine = describe_machine(compute_device().type, threads)
        document = (
            json.dumps({"date": day, "params": params.md5, "machine": machine, "results": results}, indent=2) + "\n"
        )
        atomic_write(out, document.encode())
        typer.echo(document, nl=False)


@bench.command()
def likelihood(
    run: Annotated[list[str], typer.Option(help="A trained run; several.")] = ["chars_md4", "digits", "photos"],  # noqa: B006
    calls: Annotated[list[int], typer.Option(help="Network calls per example; several.")] = [4, 16],  # noqa: B006
    examples: Annotated[int, typer.Option(help="Examples of the test split.")] = 16,
    repeats: Annotated[int, typer.Option(min=2, help="Seeds.")] = 6,
    threads: Threads = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    as_json: AsJson = False,
    out: Stem = None,
) -> None:
    """Measure the variance of every estimator of the likelihood bound, at equal network calls, on trained runs.

    With --out, STEM.csv and STEM.svg are written as well.
    """
    with report_errors():
        import polars as pl

        from mdpipe.benchmarks.likelihood import (
            COLUMNS,
            ESTIMATORS,
            LikelihoodBenchmark,
            add_ratios,
            to_markdown,
            to_svg,
        )
        from mdpipe.data.artifacts.files import atomic_write
        from mdpipe.stages.model_io import compute_device

        benchmarks = [
            LikelihoodBenchmark(name, kind, number, examples, repeats, threads, seed)
            for name, number, kind in product(run, calls, ESTIMATORS)
        ]
        results = add_ratios([{**asdict(one), **one.measure()} for one in benchmarks])
        # First, because it names the commit, which is marked as changed once another file in git is.
        _print_results(results, COLUMNS, to_markdown, compute_device().type, threads, as_json, out)
        if out is not None:
            atomic_write(out.with_name(f"{out.name}.csv"), pl.DataFrame(results).write_csv(float_precision=6).encode())
            atomic_write(out.with_name(f"{out.name}.svg"), to_svg(results).encode())


def _require_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU on this machine; take cpu")


def _print_results(
    results: "Sequence[Result]",
    columns: "Columns",
    to_markdown: "Callable[[Result, str, Sequence[Result]], str]",
    device: str,
    threads: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Print the results, and write STEM.json and STEM.md if `out` is given."""
    from mdpipe.benchmarks.runner import describe_machine, to_table
    from mdpipe.data.artifacts.files import atomic_write

    machine, command = describe_machine(device, threads), shlex.join(["mdpipe", *sys.argv[1:]])
    document = json.dumps({"command": command, "machine": machine, "results": results}, indent=2) + "\n"
    if out is not None:
        atomic_write(out.with_name(f"{out.name}.json"), document.encode())
        atomic_write(out.with_name(f"{out.name}.md"), to_markdown(machine, command, results).encode())
    typer.echo(document if as_json else to_table(results, columns), nl=False)
