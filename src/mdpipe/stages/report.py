"""Stage `report`: the tables of all runs and the page that shows them."""

import math
from collections.abc import Iterable
from importlib.metadata import version
from platform import python_version
from typing import Any

import numpy as np
import polars as pl
import yaml

from mdpipe.data.artifacts.aside import write_aside
from mdpipe.data.artifacts.metrics import read_metrics
from mdpipe.data.artifacts.stable_json import read_json
from mdpipe.evaluation.estimate import paired_difference
from mdpipe.params import Params
from mdpipe.params.runs import Comparison
from mdpipe.reporting.columns import EXPONENTS, SPEEDS
from mdpipe.reporting.datasets_table import datasets_table
from mdpipe.reporting.page import Exhibit, Report, report_page
from mdpipe.reporting.samplers_table import samplers_comparison
from mdpipe.reporting.tables import likelihood_table, samples_table, training_table, zero_shot_table
from mdpipe.reporting.written import write_table
from mdpipe.stages import paths

PACKAGES = ("mdpipe", "torch", "numpy", "sentencepiece", "scikit-learn", "pillow", "dvc", "snakemake")
"""What the numbers depend on."""

SHOWN_CHARACTERS = 1200
"""How much of the text samples the page shows."""


def report(params: Params) -> None:
    """Write the tables of results/ (.csv and .md each), and report/index.html.

    Raises:
        MetricsError: a metrics file is missing or broken.
    """
    pairs = [f"{run}-{source}" for run in params.zero_shot.runs for source in params.zero_shot.sources]
    tables = {
        "likelihood": likelihood_table(
            _all("evaluate", params.runs), _all("encode", params.datasets), map(_difference, params.comparisons)
        ),
        "datasets": datasets_table(_all("encode", params.datasets)),
        "zero_shot": zero_shot_table(_all("zero_shot", pairs)),
        "samples": samples_table(_all("sample", params.runs)),
        "samplers": samplers_comparison(
            {run: pl.read_csv(paths.samplers(run)) for run in params.samplers.runs}, _speeds()
        ),
    }
    for name, table in tables.items():
        write_table(table, paths.RESULTS / name)
    page = report_page(
        Report(
            **tables,
            training=training_table(_all("train", params.runs)),
            curves={run: pl.read_csv(paths.curve(run)) for run in params.runs},
            exhibits=[_exhibit(run) for run in params.runs],
            params=yaml.safe_dump(params.model_dump(mode="json")),
            versions={"python": python_version(), **{name: version(name) for name in PACKAGES}},
            exponents={
                run: pl.read_csv(path, schema_overrides=EXPONENTS)
                for run in params.runs
                if (path := paths.exponents(run)).exists()
            },
        )
    )
    write_aside(paths.REPORT / "index.html", page.encode())


def _speeds() -> pl.DataFrame | None:
    """What `mdpipe bench samplers` measured on some machine, if it did."""
    return pl.read_csv(paths.SPEEDS, schema_overrides=SPEEDS) if paths.SPEEDS.exists() else None


def _difference(pair: Comparison) -> dict[str, Any]:
    """Bits per token of a run less those of another, with the error of the difference example by example."""
    first, second = (np.load(paths.evaluation(run), allow_pickle=False) for run in (pair.run, pair.against))
    bits = paired_difference(first[:, 0], second[:, 0], first[:, 1]).scaled(1 / math.log(2))
    evaluated = read_metrics(paths.metrics("evaluate", pair.run))
    return {
        "run": pair.run,
        "against": pair.against,
        "dataset": evaluated["dataset"],
        "split": evaluated["split"],
        "value": bits.value,
        "stderr": bits.stderr,
    }


def _all(stage: str, names: Iterable[str]) -> list[dict[str, Any]]:
    return [read_metrics(paths.metrics(stage, name)) for name in names]


def _exhibit(run: str) -> Exhibit:
    folder = paths.samples(run)
    pictures = [folder / "unmasking.gif", folder / "samples.png"]
    text = folder / "samples.txt"
    classes = paths.sampled_classes(run)
    return Exhibit(
        run=run,
        pictures=[path.read_bytes() for path in pictures if path.exists()],
        text=text.read_text(encoding="utf-8")[:SHOWN_CHARACTERS] if text.exists() else "",
        classes=read_json(classes, f"run `dvc repro sample@{run}` again")["classes"] if classes.exists() else (),
    )
