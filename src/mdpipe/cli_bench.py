"""The commands `mdpipe bench ...`: speed and memory on this machine. No artifact depends on them."""

import shlex
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from mdpipe.benchmarks.settings import (
    DataSettings,
    LikelihoodSettings,
    SamplingSettings,
    Settings,
    TrainingSettings,
)
from mdpipe.options import with_options
from mdpipe.params import load_params
from mdpipe.pipeline.paths import COSTS, SPEEDS

bench = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)

Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Stem = Annotated[
    Path | None, typer.Option(metavar="STEM", help="Write STEM.json and STEM.md as well.", show_default=False)
]


def _add_benchmark(name: str, kind: type[Settings], module: str) -> None:
    """Add the command that measures every combination of its settings, the first option's values outermost."""

    @bench.command(name, help=kind.__doc__)
    @with_options(kind)
    def measure(*, as_json: AsJson = False, out: Stem = None, **options: Any) -> None:
        from mdpipe.benchmarks.runner import measure_and_write

        values = product(*(value if isinstance(value, list) else [value] for value in options.values()))
        settings = [kind(**dict(zip(options, combination, strict=True))) for combination in values]
        benchmark = import_module(f"mdpipe.benchmarks.{module}").BENCHMARK
        document, table = measure_and_write(benchmark, settings, shlex.join(["mdpipe", *sys.argv[1:]]), out)
        typer.echo(document if as_json else table, nl=False)


_add_benchmark("sample", SamplingSettings, "sampling")
_add_benchmark("train", TrainingSettings, "training")
_add_benchmark("data", DataSettings, "data")
_add_benchmark("likelihood", LikelihoodSettings, "likelihood")


@bench.command()
def samplers(
    threads: Threads = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions of each measurement.")] = 3,
    out: Annotated[Path, typer.Option(help="CSV to write; a .json next to it describes the machine.")] = SPEEDS,
) -> None:
    """Measure the samplers of the comparison in params.yaml on the trained runs, for its column tokens/s."""
    from mdpipe.benchmarks.sampling import bench_samplers

    bench_samplers(load_params(), threads, repeats, out)
    typer.echo(out.read_text(), nl=False)


@bench.command()
def stages(
    threads: Threads = 1,
    folder: Annotated[Path, typer.Option(help="Snakemake's measurements.")] = Path("benchmarks"),
    out: Annotated[Path, typer.Option(help="JSON to write.")] = COSTS,
) -> None:
    """Collect time and memory of every stage that Snakemake ran, with machine, commit and date, for the report."""
    from mdpipe.commands.stage_costs import record_stages

    record_stages(load_params(), threads, folder, out)
    typer.echo(out.read_text(), nl=False)
