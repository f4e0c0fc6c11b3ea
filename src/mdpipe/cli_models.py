"""The commands that use a trained run, `mdpipe generate`, `mdpipe infill` and `mdpipe score`: they keep no artifact."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape  # for help with brackets, which typer takes for markup

from mdpipe.params import ParamsError
from mdpipe.params.sampling import SamplerConfig

models = typer.Typer()

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A key of `runs` in params.yaml, or KEY-seedN.")]
Count = Annotated[int, typer.Option(min=1, help="Number of samples.")]
Out = Annotated[
    str | None,  # no Path, which would lose the slash at the end of a folder
    typer.Option(
        metavar="PATH",
        help="Where to write. Texts: .txt, or .jsonl with a text per line; printed by default. Images: .png, .jpg or"
        " .webp, a sheet of all, enlarged; .npy or .npz (key images), uint8 (N, H, W, C); a folder, with / at its end,"
        " a PNG each at its own size; RUN.png by default.",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help=f"One of {', '.join(SamplerConfig.kinds)}, or the name of an added one. By default, the run's in"
        " params.yaml, or else ancestral: exact, and the fastest.",
    ),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the sampler, may be given several times. ancestral, ancestral_stepwise and two_stage have"
        " decode (sample or argmax), maskgit has noise_scale, remdm has eta, predictor_corrector has"
        " num_corrector_steps."
        " By default as in params.yaml: the run's, if its sampler is of this kind, or the comparison's; or else the"
        " sampler's own default.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1, help="Steps of a sampler that walks a grid.", show_default="the run's in params.yaml, or else 128"
    ),
]
TimeGrid = Annotated[
    str | None,
    typer.Option(
        help="Spacing of these steps, uniform or cosine; by default as in params.yaml (see --set), or else cosine."
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="Below 1 sharpens, above 1 flattens.", show_default="the run's in params.yaml, or else 1"),
]
TopK = Annotated[
    int | None,
    typer.Option(help="Sample from the K most likely tokens.", show_default="the run's in params.yaml, or else all"),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Sample from the fewest tokens that hold this much probability; 1 is all.",
        show_default="the run's in params.yaml, or else 1",
    ),
]
Label = Annotated[str | None, typer.Option(help="Name or number of the class, for a class-conditional run.")]
GuidanceScale = Annotated[
    float | None,
    typer.Option(
        help="Scale s of classifier-free guidance: log-probabilities are (1 + s) conditional - s unconditional, so 0 is"
        " the conditional model. Needs --label.",
        show_default="the run's in params.yaml, or else none",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; with another number, last digits may differ.")]


@models.command()
def generate(
    run: RunName,
    prompt: Annotated[str, typer.Option(help="Text that every sample begins with.")] = "",
    count: Count = 4,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens of a text; the model's window by default.")] = None,
    out: Out = None,
    sampler: Sampler = None,
    settings: Settings = [],  # noqa: B006 (typer reads the default, which is never changed)
    steps: Steps = None,
    time_grid: TimeGrid = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    label: Label = None,
    guidance_scale: GuidanceScale = None,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Sample from a run: texts are printed, images written to a file."""
    from mdpipe.commands.interactive import generate as generate_samples
    from mdpipe.commands.sampling_options import SamplingOptions

    options = SamplingOptions(
        sampler, settings, steps, time_grid, temperature, top_k, top_p, label, guidance_scale, seed, threads
    )
    generate_samples(run, options, count, prompt, length, out)


@models.command()
def infill(
    run: RunName,
    text: Annotated[str | None, typer.Option(help=escape("A text with masks: [MASK:12] is twelve tokens."))] = None,
    mask_length: Annotated[int, typer.Option(min=1, help=escape("Tokens of a mask written [MASK]."))] = 16,
    gap: Annotated[int | None, typer.Option(hidden=True)] = None,
    image: Annotated[Path | None, typer.Option(help="An image of the run's size.")] = None,
    mask: Annotated[Path | None, typer.Option(help="An image that is black where the other is kept.")] = None,
    count: Count = 4,
    out: Out = None,
    sampler: Sampler = None,
    settings: Settings = [],  # noqa: B006 (typer reads the default, which is never changed)
    steps: Steps = None,
    time_grid: TimeGrid = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    label: Label = None,
    guidance_scale: GuidanceScale = None,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Fill the masks of a text, or the masked part of an image."""
    from mdpipe.commands.interactive import infill_image, infill_text
    from mdpipe.commands.sampling_options import SamplingOptions

    options = SamplingOptions(
        sampler, settings, steps, time_grid, temperature, top_k, top_p, label, guidance_scale, seed, threads
    )
    if gap is not None:
        raise ParamsError("--gap is now --mask-length, and [gap:12] in a text is [MASK:12]")
    if text is not None and image is None and mask is None:
        infill_text(run, options, count, text, mask_length, out)
    elif text is None and image is not None and mask is not None:
        infill_image(run, options, count, image, mask, out)
    elif text is None and (image is None) is not (mask is None):
        given, lacking = ("--image", "--mask") if mask is None else ("--mask", "--image")
        raise ParamsError(f"{given} needs {lacking}: the mask is an image that is black where the image is kept")
    else:
        raise ParamsError("give either --text, or --image and --mask")


@models.command()
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
        typer.Option(metavar="PATH", help="Where to write: .jsonl or .csv; JSON lines are printed by default."),
    ] = None,
    num_mc_samples: Annotated[int, typer.Option(min=2, help="Monte Carlo samples of a continuation, even.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a network call.")] = 64,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Bound -log2 p of continuations given their contexts, and choose among several by likelihood."""
    from mdpipe.commands.score import score as score_file

    score_file(run, file, out, num_mc_samples, batch_size, seed, threads)
