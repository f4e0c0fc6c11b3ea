"""The command line: one command per stage, and the commands that users run themselves.

A stage's module is imported when its command runs, so that light stages do not wait for torch.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape  # For help with brackets, which typer takes for markup.
from typer.core import TyperGroup

from mdpipe.cli_bench import bench
from mdpipe.commands.sampling_options import SamplingOptions
from mdpipe.console import configure_logging, full_keys, report_errors
from mdpipe.options import with_options
from mdpipe.params import Params, ParamsError, dump_params, json_schema, load_params, parse_params, read_params
from mdpipe.params.errors import did_you_mean
from mdpipe.pipeline import paths
from mdpipe.pipeline.preflight import (
    dvc_targets,
    linked_folders,
    require_usable,
    require_writable,
    state_folders,
    working_copy_problems,
)
from mdpipe.pipeline.provenance import require_unchanged_inputs, stage_outputs, stage_params_file, watch_inputs
from mdpipe.processes import DVC_MARK, exit_with_engine, request_requeue

RENAMED = {"tokenizer": "fit-tokenizer", "samplers": "compare-samplers", "zero_shot": "zero-shot"}
"""The present names of commands that had other names."""


class Commands(TyperGroup):
    """The commands, which report bad input in one line; one by its old name is refused with the new one."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        with report_errors():
            return super().invoke(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name."""
        if cmd_name in RENAMED:
            raise ParamsError(f"`mdpipe {cmd_name}` is now `mdpipe {RENAMED[cmd_name]}`")
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=Commands,
    help="Masked diffusion models of text and images, as a reproducible pipeline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A key of `runs` in params.yaml, or KEY-seedN.")]
Count = Annotated[int, typer.Option(min=1, help="Number of samples.")]
Out = Annotated[
    str | None,  # No Path, which would lose the slash at the end of a folder
    typer.Option(
        metavar="PATH",
        help="File to write. Texts: .txt, or .jsonl with a text per line; printed by default. Images: .png, .jpg or"
        " .webp, a sheet of all, enlarged; .npy or .npz (key images), uint8 (N, H, W, C); a folder, with / at its end,"
        " a PNG each at its own size; RUN.png by default.",
    ),
]


STAGES: dict[str, tuple[str, ...]] = {
    "resolve": ("Write params.resolved.yaml: params.yaml with all defaults filled in.",),
    "download": ("Fetch the raw text or images of a source.", "sources"),
    "fit_tokenizer": ("Fit a dataset's tokenizer to its training split.", "datasets"),
    "encode": ("Split a dataset and turn it into tokens.", "datasets"),
    "train": ("Train a run; goes on from its last checkpoint.", "runs"),
    "sample": ("Sample from a trained run.", "runs"),
    "evaluate": ("Bound the likelihood of a run's held-out split.", "runs"),
    "zero_shot": (
        "Bound the likelihood of text that a run was not trained on; `zero_shot` of params.yaml has both.",
        "zero_shot.runs",
        "zero_shot.sources",
    ),
    "compare_samplers": ("Compare the samplers on a run that `samplers.runs` of params.yaml has.", "samplers.runs"),
    "fit_features": (
        "Train or load a feature network of images, and compute the features of its dataset.",
        "image_quality.features",
    ),
    "measure_images": (
        "Measure samples of a run of images that `image_quality.runs` of params.yaml has.",
        "image_quality.runs",
    ),
    "report": ("Collect the tables and write the page.",),
}
"""Help of each stage's command, and the sections of params.yaml whose keys are its arguments."""
ARGUMENTS: dict[str, Any] = {
    "sources": Annotated[str, typer.Argument(metavar="SOURCE", help="A key of `sources` in params.yaml.")],
    "datasets": Annotated[str, typer.Argument(metavar="DATASET", help="A key of `datasets` in params.yaml.")],
    "features": Annotated[
        str, typer.Argument(metavar="NAME", help="A key of `image_quality.features` in params.yaml.")
    ],
    "runs": RunName,
}
"""Arguments of commands, by the last part of the section."""


def _add_stage(stage: str, description: str, sections: Sequence[str]) -> None:
    """Add the command of a stage."""
    arguments = {section.rpartition(".")[2]: section for section in sections}

    def run(**names: str) -> None:
        _run_stage(stage, {section: names[argument] for argument, section in arguments.items()})

    parameters = [Parameter(name, Parameter.KEYWORD_ONLY, annotation=ARGUMENTS[name]) for name in arguments]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    panel = "Stages of dvc.yaml, which snakemake and dvc repro run"
    app.command(stage.replace("_", "-"), help=description, rich_help_panel=panel)(run)


for _stage, (_description, *_sections) in STAGES.items():
    _add_stage(_stage, _description, _sections)


@app.command()
def readme() -> None:
    """Write the tables and figures of the latest results into README.md and results/README.md."""
    from mdpipe.commands.readme import readme as write_results

    write_results(load_params())


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The params file.")] = Path("params.yaml"),
    resolved: Annotated[bool, typer.Option("--resolved", help="Print the params with all defaults filled in.")] = False,
) -> None:
    """Validate params and print what would run."""
    from mdpipe.commands.check import describe

    params = load_params(file)
    require_usable(params, with_sources=True)
    typer.echo(dump_params(params).rstrip() if resolved else describe(params))
    if not resolved:
        typer.echo("The params are valid, and the files that they name begin as they should.")


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(help="The params file.")] = Path("params.yaml"),
    mfu: Annotated[float, typer.Option(help="Fraction of the peak that training on a GPU reaches.")] = 0.4,
    peak: Annotated[float, typer.Option(help="TFLOP/s of a GPU; by default an H100's, dense in bfloat16.")] = 989.0,
    cpu_gflops: Annotated[float, typer.Option(help="GFLOP/s that training reaches on a CPU core, in float32.")] = 50.0,
) -> None:
    """Count what every stage will fetch, keep, read and compute, before anything runs."""
    from mdpipe.commands.plan import describe

    typer.echo(describe(load_params(file), mfu, peak, cpu_gflops))


@app.command()
def datasets(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Show all details of these.")] = None,
) -> None:
    """List the data sets of the catalog, and how params.yaml asks for one."""
    from mdpipe.commands.datasets import describe

    typer.echo(describe(names or []))


@app.command()
def audit(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="An objective, a schedule or a counterexample; by default all built-in."),
    ] = None,
    setting: Annotated[
        list[str],
        typer.Option(metavar="KEY=VALUE", help="A setting of the kind as in params.yaml; may be given several times."),
    ] = [],  # noqa: B006
    show_list: Annotated[bool, typer.Option("--list", help="List what can be audited.")] = False,
) -> None:
    """Check that an objective's number is a bound: never below the entropy of sources where that is known."""
    from mdpipe.commands.audit import describe_kinds, run_audit

    if show_list:
        typer.echo(describe_kinds())
    else:
        run_audit(kind, setting)


@app.command()
def verify() -> None:
    """Hash every artifact in dvc.lock and every object in DVC's cache; name and discard broken ones."""
    from mdpipe.commands.upkeep import verify as verify_artifacts

    typer.echo(verify_artifacts())


@app.command()
def clean(
    force: Annotated[bool, typer.Option("--force", help="Remove it, instead of only listing it.")] = False,
) -> None:
    """List what earlier params left behind and params.yaml no longer asks for, with sizes."""
    from mdpipe.commands.upkeep import clean as remove_leftovers

    typer.echo(remove_leftovers(load_params(), force=force))


@app.command()
def unlock() -> None:
    """Remove the locks that killed DVC processes left behind."""
    from mdpipe.commands.upkeep import unlock as remove_stale_locks

    typer.echo(remove_stale_locks())


@app.command()
def schema() -> None:
    """Print the JSON Schema of params.yaml, for editors."""
    typer.echo(json_schema(), nl=False)


@app.command()
@with_options(SamplingOptions)
def generate(
    run: RunName,
    prompt: Annotated[str, typer.Option(help="Text that every sample begins with.")] = "",
    count: Count = 4,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens per text; the model's window by default.")] = None,
    out: Out = None,
    **options: Any,
) -> None:
    """Sample from a run: texts are printed, images written to a file."""
    from mdpipe.commands.interactive import generate as generate_samples

    generate_samples(run, SamplingOptions(**options), count, prompt, length, out)


@app.command()
@with_options(SamplingOptions)
def infill(
    run: RunName,
    text: Annotated[str | None, typer.Option(help=escape("A text with masks: [MASK:12] is twelve tokens."))] = None,
    mask_length: Annotated[int, typer.Option(min=1, help=escape("Tokens of a mask written [MASK]."))] = 16,
    length: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of the text; the model's window by default.")
    ] = None,
    gap: Annotated[int | None, typer.Option(hidden=True)] = None,
    image: Annotated[Path | None, typer.Option(help="An image of the run's size.")] = None,
    mask: Annotated[Path | None, typer.Option(help="An image that is black where the other is kept.")] = None,
    count: Count = 4,
    out: Out = None,
    **options: Any,
) -> None:
    """Fill the masks of a text, or the masked part of an image."""
    from mdpipe.commands.interactive import infill_image, infill_text

    if gap is not None:
        raise ParamsError("--gap is now --mask-length, and [gap:12] in a text is [MASK:12]")
    if text is not None and image is None and mask is None:
        infill_text(run, SamplingOptions(**options), count, text, mask_length, length, out)
    elif text is None and image is not None and mask is not None:
        if length is not None:
            raise ParamsError("--length is for --text: an image has the size of the run's images")
        infill_image(run, SamplingOptions(**options), count, image, mask, out)
    elif text is None and (image is None) is not (mask is None):
        given, lacking = ("--image", "--mask") if mask is None else ("--mask", "--image")
        raise ParamsError(f"{given} needs {lacking}: the mask is an image that is black where the image is kept")
    else:
        raise ParamsError("give either --text, or --image and --mask")


@app.command()
@with_options(SamplingOptions, "seed", "threads")
def score(
    run: RunName,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON lines with context and continuation, with context, choices and label, or in HellaSwag's layout.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="File to write: .jsonl or .csv; JSON lines are printed by default."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="conditional|md4",
            help="conditional: continuations given their contexts; md4: both together, padded, as in the paper.",
        ),
    ] = "conditional",
    num_mc_samples: Annotated[
        int, typer.Option(min=2, help="Monte Carlo samples per continuation, an even number.")
    ] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per network call.")] = 64,
    **options: int,
) -> None:
    """Bound -log2 p of continuations given their contexts, and choose among several by likelihood."""
    from mdpipe.commands.score import score as score_file

    score_file(run, file, out, protocol, num_mc_samples, batch_size, **options)


def _run_stage(stage: str, names: Mapping[str, str]) -> None:
    """Check params and the arguments, by their sections of params.yaml, then call the stage's function."""
    exit_with_engine()
    configure_logging()
    file = stage_params_file()
    content = read_params(file)
    watch_inputs(stage, list(names.values()), content)
    params = parse_params(content, name=str(file))
    for section, name in names.items():
        _require(params, section, name)
    if DVC_MARK in os.environ:
        sources = names.values() if stage == "download" else ()
        if problem := next(chain(working_copy_problems(params), linked_folders(params, sources)), None):
            raise ValueError(problem)
        outputs = stage_outputs(stage, list(names.values()), content)
        require_writable([*(output.parent for output in outputs), *state_folders(), *dvc_targets()])
    module = importlib.import_module(f"mdpipe.stages.{stage}")
    # Training that was interrupted and can go on exits with this status.
    with full_keys(params, names), request_requeue(os.EX_TEMPFAIL, paths.REQUEUE_DIR):
        getattr(module, stage)(params, *names.values())
    require_unchanged_inputs()


def _require(params: Params, section: str, name: str) -> None:
    known = attrgetter(section)(params)
    if name not in known:
        hint = did_you_mean(name, known)
        raise ParamsError(
            f"{name!r} is not in `{section}` of params.yaml{hint}; it has: {', '.join(sorted(known)) or 'none'}"
        )
