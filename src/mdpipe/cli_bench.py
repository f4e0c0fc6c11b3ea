"""The commands `mdpipe bench ...`: how fast things run on this machine. No artifact depends on what they measure."""

import json
import shlex
import sys
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from mdpipe.cli_errors import told_plainly
from mdpipe.params import load_params
from mdpipe.stages.paths import SPEEDS

bench = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)

Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Repeats = Annotated[int, typer.Option(min=1, help="How often each is timed.")]


@bench.command()
def sample(
    sampler: Annotated[
        list[str], typer.Option(help="ancestral, two_stage, reveal_first or first_hitting; may be given several times.")
    ] = ["reveal_first", "ancestral"],  # noqa: B006 (typer reads the default, nobody changes it)
    batch: Annotated[list[int], typer.Option(help="Samples drawn at once; may be given several times.")] = [1, 8],  # noqa: B006
    length: Annotated[int, typer.Option(help="Tokens of a sample.")] = 1024,
    vocabulary: Annotated[int, typer.Option(help="Tokens to choose from.")] = 50257,
    steps: Annotated[int, typer.Option(help="Steps from masks to samples.")] = 1000,
    steady_steps: Annotated[
        int, typer.Option(help="Run only so many steps of a sampler whose steps all cost the same.")
    ] = 10,
    layers: Annotated[int, typer.Option(help="Of the transformer.")] = 4,
    heads: Annotated[int, typer.Option(help="Of the transformer.")] = 4,
    width: Annotated[int, typer.Option(help="Of the transformer.")] = 128,
    repeats: Repeats = 3,
    threads: Threads = 1,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the network: float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and samples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="STEM", help="Write STEM.json and STEM.md as well.", show_default=False)
    ] = None,
) -> None:
    """Sampling from masks alone, with a random transformer: each sampler at each batch, in a process of its own."""
    with told_plainly():
        from mdpipe.benchmarks.apart import measured_apart
        from mdpipe.benchmarks.configuration import Configuration
        from mdpipe.benchmarks.table import compared, markdown, page
        from mdpipe.data.artifacts.aside import write_aside

        configurations = [
            Configuration(
                sampler=kind,
                batch=size,
                length=length,
                vocabulary=vocabulary,
                steps=steps,
                steady_steps=steady_steps,
                layers=layers,
                heads=heads,
                width=width,
                repeats=repeats,
                threads=threads,
                device=device,
                dtype=dtype,
                seed=seed,
            )
            for size, kind in product(batch, sampler)
        ]
        results = compared([measured_apart(configuration) for configuration in configurations])
        from mdpipe.benchmarks.machine import describe  # Loads torch, which would count in the others' memory.

        machine, command = describe(device, threads), shlex.join(["mdpipe", *sys.argv[1:]])
        document = json.dumps({"command": command, "machine": machine, "results": results}, indent=2) + "\n"
        if out is not None:
            write_aside(out.with_name(f"{out.name}.json"), document.encode())
            write_aside(out.with_name(f"{out.name}.md"), page(machine, command, results).encode())
        typer.echo(document if as_json else markdown(results), nl=False)


@bench.command()
def samplers(
    threads: Threads = 1,
    repeats: Repeats = 3,
    out: Annotated[Path, typer.Option(help="CSV to write; the machine is described beside it, in .json.")] = SPEEDS,
) -> None:
    """The samplers of the comparison in params.yaml, on the trained runs in models/: what its column tokens/s shows."""
    with told_plainly():
        from mdpipe.benchmarks.machine import describe
        from mdpipe.stages.bench_samplers import bench_samplers
        from mdpipe.stages.trained import compute_device

        bench_samplers(load_params(), describe(compute_device().type, threads), threads, repeats, out)
        typer.echo(out.read_text(), nl=False)
