"""Stage `report`: the tables and figures of all runs, and the page that shows them."""

import math
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from platform import python_version
from typing import Any

import numpy as np
import polars as pl
import yaml

from mdpipe.data.artifacts.files import atomic_dir, read_json
from mdpipe.data.artifacts.metrics import read_record
from mdpipe.evaluation.estimate import paired_difference
from mdpipe.params import Params
from mdpipe.params.data import modality_of
from mdpipe.params.runs import Comparison
from mdpipe.pipeline import paths
from mdpipe.reporting import tables
from mdpipe.reporting.figures import exponents_chart, likelihood_chart, samplers_chart, training_chart
from mdpipe.reporting.page import PageImage, Report, SampleGallery, report_page
from mdpipe.reporting.style import Chart
from mdpipe.reporting.tables_io import write_table

PACKAGES = ("mdpipe", "torch", "numpy", "sentencepiece", "scikit-learn", "pillow", "dvc", "snakemake")
"""The packages that the numbers depend on."""

DISPLAYED_CHARACTERS = 1200
"""Characters of the text samples that the page shows."""


def report(params: Params) -> None:
    """Write the tables of results/ (.csv and .md each), and report/: index.html and the figures as SVG.

    Raises:
        MetricsError: a metrics file or a record is missing or broken.
    """
    pairs = [f"{run}-{source}" for run in params.zero_shot.runs for source in params.zero_shot.sources]
    encodings = [read_record(paths.record("encode", dataset)) for dataset in params.datasets]
    speeds = pl.read_csv(paths.SPEEDS, schema_overrides=tables.SPEEDS) if paths.SPEEDS.exists() else None
    compared = {run: pl.read_csv(paths.samplers(run)) for run in params.samplers.runs}
    results = {
        "likelihood": tables.likelihood_table(
            _records("evaluate", params.runs), encodings, map(_difference, params.comparisons)
        ),
        "datasets": tables.datasets_table(encodings),
        "zero_shot": tables.zero_shot_table(_records("zero_shot", pairs)),
        "samples": tables.samples_table(_records("sample", params.runs)),
        "samplers": tables.samplers_table(compared, speeds),
    }
    training = tables.training_table(_records("train", params.runs))
    for name, table in results.items():
        write_table(table, paths.RESULTS / name)
    charts = _charts(params, results["likelihood"], results["samplers"], training)
    figures = {name: PageImage(chart.to_svg().encode(), chart.alt) for name, chart in charts.items()}
    page = report_page(
        Report(
            **results,
            training=training,
            figures=figures,
            galleries=[_gallery(run) for run in params.runs],
            params=yaml.safe_dump(params.model_dump(mode="json")),
            versions={"python": python_version(), **{name: version(name) for name in PACKAGES}},
        )
    )
    with atomic_dir(paths.REPORT) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        for name, figure in figures.items():
            (folder / f"{name}.svg").write_bytes(figure.content)


def _records(stage: str, names: Iterable[str]) -> list[dict[str, Any]]:
    return [read_record(paths.record(stage, name), paths.metrics(stage, name)) for name in names]


def _difference(pair: Comparison) -> dict[str, Any]:
    """Return bits per token of a run minus those of its baseline, with the error of the paired differences."""
    first, second = (np.load(paths.evaluation(run), allow_pickle=False) for run in (pair.run, pair.baseline))
    bits = paired_difference(first[:, 0], second[:, 0], first[:, 1]).scaled(1 / math.log(2))
    record = read_record(paths.record("evaluate", pair.run))
    data = {name: record[name] for name in ("dataset", "split")}
    return {"run": pair.run, "baseline": pair.baseline, **data, "value": bits.value, "stderr": bits.stderr}


def _charts(
    params: Params, likelihood: pl.DataFrame, samplers: pl.DataFrame, training: pl.DataFrame
) -> Mapping[str, Chart]:
    """Draw each figure for which there are results."""
    exponents = {
        run: pl.read_csv(path, schema_overrides=tables.EXPONENTS)
        for run in params.runs
        if (path := paths.exponents(run)).exists()
    }
    charts = {}
    if likelihood.height:
        charts["likelihood"] = likelihood_chart(likelihood)
    if samplers.height:
        charts["samplers"] = samplers_chart(samplers)
    if exponents:
        # Gray levels are ordered, tokens of text are not.
        is_image = {run: modality_of(params.datasets[params.runs[run].dataset]) == "image" for run in exponents}
        charts["exponents"] = exponents_chart(exponents, is_image)
    if training.height:
        curves = {run: pl.read_csv(paths.curve(run)) for run in params.runs}
        charts["training"] = training_chart(curves, dict(training.select("run", "unit").iter_rows()))
    return charts


def _gallery(run: str) -> SampleGallery:
    folder = paths.samples(run)
    alts = {"unmasking.gif": f"Unmasking of samples of {run}", "samples.png": f"Samples of {run}"}
    text, classes = folder / "samples.txt", paths.sampled_classes(run)
    return SampleGallery(
        run=run,
        images=[PageImage((folder / name).read_bytes(), alt) for name, alt in alts.items() if (folder / name).exists()],
        text=text.read_text(encoding="utf-8")[:DISPLAYED_CHARACTERS] if text.exists() else "",
        classes=read_json(classes, f"run `dvc repro sample@{run}` again")["classes"] if classes.exists() else (),
    )
