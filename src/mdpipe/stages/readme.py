"""`mdpipe readme`: README.md's tables and pictures from the latest results: no number in it is typed by hand."""

import shutil
from pathlib import Path

from mdpipe.data.artifacts.aside import write_aside
from mdpipe.data.artifacts.metrics import read_metrics
from mdpipe.params import Params
from mdpipe.reporting.likelihood_figure import likelihood_figure
from mdpipe.reporting.readme import replace_section
from mdpipe.reporting.tables import likelihood_table
from mdpipe.stages import paths

README = Path("README.md")
PICTURES = Path("docs/pictures")
TABLES = ("likelihood", "zero_shot", "samples")


def readme(params: Params) -> None:
    """Put results/*.md between README.md's markers; copy samples and draw the chart into docs/pictures.

    Raises:
        ValueError: README.md lacks a marker, or a result is missing.
    """
    text = README.read_text(encoding="utf-8")
    for name in TABLES:
        text = replace_section(text, name, (paths.RESULTS / f"{name}.md").read_text(encoding="utf-8"))
    evaluations = [read_metrics(paths.metrics("evaluate", run)) for run in params.runs]
    encodings = [read_metrics(paths.metrics("encode", dataset)) for dataset in params.datasets]
    write_aside(PICTURES / "likelihood.svg", likelihood_figure(likelihood_table(evaluations, encodings)).encode())
    for run in params.runs:
        for picture in ("unmasking.gif", "samples.png"):
            if (paths.samples(run) / picture).exists():
                shutil.copy(paths.samples(run) / picture, PICTURES / f"{run}_{picture}")
    write_aside(README, text.encode())
