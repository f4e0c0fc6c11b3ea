"""README.md, results/README.md and their images are of the results that are in git: `mdpipe readme` makes them."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from mdpipe.commands.readme import IMAGES, SOURCES, TABLES
from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import locked_hashes
from mdpipe.reporting import schemas
from mdpipe.reporting.charts import Chart, likelihood_chart
from mdpipe.reporting.evaluation_charts import samplers_chart
from mdpipe.reporting.markdown import replace_section

ROOT = Path(__file__).parents[2]
HINT = "run `mdpipe readme`"


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, names in TABLES.items() for name in names])
def test_the_tables_are_those_of_the_results(page: Path, name: str) -> None:
    text = page.read_text(encoding="utf-8")
    table = (paths.RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert replace_section(text, name, table) == text, HINT


def visible_texts(svg: str) -> list[str]:
    """Return the texts of a figure, among them the values of its marks; positions depend on the machine's fonts."""
    return re.findall(r'aria-label="([^"]*)"', svg) + re.findall(r">([^<>]+)</text>", svg)


@pytest.mark.parametrize("name", ["likelihood", "samplers"])
def test_the_figures_are_those_of_the_results(name: str) -> None:
    schema = {"likelihood": schemas.LIKELIHOOD | schemas.COMPARISON, "samplers": None}[name]
    frame = pl.read_csv(paths.RESULTS / f"{name}.csv", schema_overrides=schema, infer_schema_length=None)
    chart: Chart = {"likelihood": likelihood_chart, "samplers": samplers_chart}[name](frame)
    assert visible_texts(chart.to_svg()) == visible_texts((IMAGES / f"{name}.svg").read_text(encoding="utf-8")), HINT


def test_the_images_are_of_the_samples_in_dvc_lock() -> None:
    sources = json.loads(SOURCES.read_text(encoding="utf-8"))
    hashes = locked_hashes()
    for name, folders in sources.items():
        assert (IMAGES / name).exists()
        assert folders == {folder: hashes[folder] for folder in folders}, f"{name} is of other samples: {HINT}"
    generated = {path.name for path in IMAGES.iterdir() if re.search(r"_unmasking\.gif$|_samples\.png$", path.name)}
    assert sources.keys() == generated | {"exponents.svg"}


def test_the_estimators_are_measured_on_the_models_in_dvc_lock() -> None:
    document = json.loads((paths.RESULTS / "estimators.json").read_text(encoding="utf-8"))
    hashes = locked_hashes()
    for row in document["results"]:
        assert row["model"] == hashes[str(paths.model(row["run"]))], f"{row['run']} changed: run {document['command']}"
