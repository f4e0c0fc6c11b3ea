"""`mdpipe readme`: README.md's tables and pictures from the latest results: no number in it is typed by hand."""

import shutil
from pathlib import Path

import polars as pl

from mdpipe.data.artifacts.aside import write_aside
from mdpipe.data.artifacts.metrics import read_metrics
from mdpipe.params import Params
from mdpipe.params.data import modality_of
from mdpipe.reporting.columns import EXPONENTS
from mdpipe.reporting.exponents_figure import exponents_figure
from mdpipe.reporting.likelihood_figure import likelihood_figure
from mdpipe.reporting.readme import replace_section
from mdpipe.reporting.samplers_figure import samplers_figure
from mdpipe.reporting.samplers_table import samplers_comparison
from mdpipe.reporting.tables import likelihood_table
from mdpipe.stages import paths

README = Path("README.md")
PICTURES = Path("docs/pictures")
TABLES = ("likelihood", "zero_shot", "samples", "samplers")


def readme(params: Params) -> None:
    """Put results/*.md between README.md's markers; copy samples and draw the charts into docs/pictures.

    Raises:
        ValueError: README.md lacks a marker, or a result is missing.
    """
    text = README.read_text(encoding="utf-8")
    for name in TABLES:
        text = replace_section(text, name, (paths.RESULTS / f"{name}.md").read_text(encoding="utf-8"))
    for name, figure in _figures(params).items():
        write_aside(PICTURES / f"{name}.svg", figure.encode())
    for run in params.runs:
        for picture in ("unmasking.gif", "samples.png"):
            if (paths.samples(run) / picture).exists():
                shutil.copyfile(paths.samples(run) / picture, PICTURES / f"{run}_{picture}")
    write_aside(README, text.encode())


def _figures(params: Params) -> dict[str, str]:
    evaluations = [read_metrics(paths.metrics("evaluate", run)) for run in params.runs]
    encodings = [read_metrics(paths.metrics("encode", dataset)) for dataset in params.datasets]
    compared = samplers_comparison({run: pl.read_csv(paths.samplers(run)) for run in params.samplers.runs})
    learned = [run for run in params.runs if paths.exponents(run).exists()]
    return {
        "likelihood": likelihood_figure(likelihood_table(evaluations, encodings)),
        "samplers": samplers_figure(compared),
        "exponents": exponents_figure(
            {run: pl.read_csv(paths.exponents(run), schema_overrides=EXPONENTS) for run in learned},
            {run: modality_of(params.datasets[params.runs[run].dataset]) == "image" for run in learned},
        ),
    }
