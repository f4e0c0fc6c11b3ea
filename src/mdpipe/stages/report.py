"""Stage `report`: the tables of all runs and the page that shows them."""

from collections.abc import Iterable
from importlib.metadata import version
from platform import python_version
from typing import Any

import polars as pl
import yaml

from mdpipe.params import Params
from mdpipe.reporting.aside import write_aside
from mdpipe.reporting.metrics import read_metrics
from mdpipe.reporting.page import Exhibit, Report, report_page
from mdpipe.reporting.tables import likelihood_table, samples_table, training_table, zero_shot_table
from mdpipe.reporting.written import write_table
from mdpipe.stages import paths

PACKAGES = ("mdpipe", "torch", "numpy", "sentencepiece", "scikit-learn", "pillow", "dvc", "snakemake")
"""What the numbers depend on."""

SHOWN_CHARACTERS = 1200
"""How much of the text samples the page shows."""


def report(params: Params) -> None:
    """Write results/likelihood, zero_shot and samples (.csv and .md), and report/index.html.

    Raises:
        MetricsError: a metrics file is missing or broken.
    """
    pairs = [f"{run}-{source}" for run in params.zero_shot.runs for source in params.zero_shot.sources]
    likelihood = likelihood_table(_all("evaluate", params.runs), _all("encode", params.datasets))
    zero_shot = zero_shot_table(_all("zero_shot", pairs))
    samples = samples_table(_all("sample", params.runs))
    for name, table in {"likelihood": likelihood, "zero_shot": zero_shot, "samples": samples}.items():
        write_table(table, paths.RESULTS / name)
    page = report_page(
        Report(
            likelihood=likelihood,
            zero_shot=zero_shot,
            samples=samples,
            training=training_table(_all("train", params.runs)),
            curves={run: pl.read_csv(paths.curve(run)) for run in params.runs},
            exhibits=[_exhibit(run) for run in params.runs],
            params=yaml.safe_dump(params.model_dump(mode="json")),
            versions={"python": python_version(), **{name: version(name) for name in PACKAGES}},
        )
    )
    write_aside(paths.REPORT / "index.html", page.encode())


def _all(stage: str, names: Iterable[str]) -> list[dict[str, Any]]:
    return [read_metrics(paths.metrics(stage, name)) for name in names]


def _exhibit(run: str) -> Exhibit:
    folder = paths.samples(run)
    pictures = [folder / "unmasking.gif", folder / "samples.png"]
    text = folder / "samples.txt"
    return Exhibit(
        run=run,
        pictures=[path.read_bytes() for path in pictures if path.exists()],
        text=text.read_text(encoding="utf-8")[:SHOWN_CHARACTERS] if text.exists() else "",
    )
