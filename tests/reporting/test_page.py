"""The page and the cards have every number, run nothing but their own script, and show all names as text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import polars as pl
import pytest
import yaml

from mdpipe.reporting.charts import exponents_chart, likelihood_chart, training_charts
from mdpipe.reporting.evaluation_charts import calibration_chart, profile_chart, samplers_chart
from mdpipe.reporting.page import (
    PageImage,
    Report,
    SampleGallery,
    Sourced,
    definitions,
    model_card,
    report_page,
    settings_table,
)
from mdpipe.reporting.published import COMPARED
from mdpipe.reporting.schemas import (
    BOUND_LOSS,
    COSTS,
    FILE,
    HELD_OUT_COLUMNS,
    OTHER_TEXT_COLUMNS,
    SAMPLES,
    TRAINING,
    to_display,
)
from mdpipe.reporting.tables import (
    datasets_table,
    likelihood_table,
    samplers_table,
    table_of_runs,
    with_means,
    zero_shot_table,
)
from tests.reporting.records import (
    IMAGE_RATES,
    encoding,
    evaluation,
    exponents_frame,
    rate,
    sample,
    scored,
    scored_frame,
    training,
    zero_shot,
)

pytestmark = pytest.mark.slow

VOID = {"meta", "img", "br", "wbr", "input"}
EVIL = "<script>\"&'</script>"
PATH = "metrics/evaluate/pieces.json"
MD5 = "0cc175b9c0f1b6a831c399e269772661"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001"
    "48afa4710000000049454e44ae426082"
)
"""One black pixel."""
FILLED = {"before": "the ", "original": "cat", "filled": "dog", "after": " sat"}
MASK_FRACTION_ROWS = pl.DataFrame({"mask_fraction": [0.1, 1.0], "bits": [1.5, 4.0], "bits_stderr": [0.1, None]})
POSITION_ROWS = pl.DataFrame(
    {"first": [1, 2], "last": [1, 3], "bits": [3.0, 2.0], "bits_stderr": [0.1, 0.1], "tokens": [9, 18]}
)
CALIBRATION_ROWS = pl.DataFrame(
    {
        "mask_fraction": ["0 to 1", "0 to 1/3", "1/3 to 2/3"],
        "confidence": [0.5, 0.4, 0.6],
        "frequency": [0.5, 0.5, 0.5],
        "stderr": [0.1, 0.1, None],
        "weight": [1.0, 1.0, 1.0],
        "calibration_error": [0.0, 0.1, 0.1],
    }
)


class Outline(HTMLParser):
    """Every tag with its attributes, all text, and a check that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["script"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def with_file(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(PATH).alias(FILE))


def report(run: str = "pieces", name: str = "digits") -> Report:
    rows = [scored(run, "ancestral", 8, temperature=value) for value in (0.7, 1.0)] + [scored(run, "data", None)]
    tables = {
        "likelihood": with_means(
            likelihood_table([evaluation(run, name)], [encoding(name, IMAGE_RATES)]), {run: [run]}, HELD_OUT_COLUMNS
        ),
        "zero_shot": with_means(zero_shot_table([zero_shot(run, "numpy_docs")]), {run: [run]}, OTHER_TEXT_COLUMNS),
        "samples": table_of_runs([sample(run)], SAMPLES, "sample"),
        "training": table_of_runs([training(run)], TRAINING, "train").with_columns(training_loss=pl.lit(BOUND_LOSS)),
        "samplers": samplers_table({run: scored_frame(rows)}),
        "datasets": datasets_table([encoding(name, [])]),
        "costs": pl.DataFrame([[f"train@{run}"], [61.5], [59.0], [436.4], [1000], [8.5]], schema=COSTS),
    }
    curve = pl.DataFrame({"step": [1, 2], "train/loss": [3.0, 2.0]})
    tables = {table: with_file(frame) for table, frame in tables.items()}
    trained = tables["training"].with_columns(dataset=pl.lit(name))
    mask_fractions, positions, calibration = (
        with_file(frame).with_columns(run=pl.lit(run))
        for frame in (MASK_FRACTION_ROWS, POSITION_ROWS, CALIBRATION_ROWS)
    )
    return Report(
        facts={"wall time": Sourced("31 minutes", PATH), "commit": Sourced("cd3c4b6, `mdpipe bench stages`")},
        tables=tables,
        settings=settings_table({run: {"train": {"steps": 5}}, "other": {"train": {"steps": 6, "note": name}}}),
        figures={
            "likelihood": likelihood_chart(tables["likelihood"]),
            "samplers": samplers_chart(tables["samplers"]),
        },
        by_dataset={
            "curves": training_charts({run: with_file(curve).with_columns(run=pl.lit(run))}, trained),
            "profiles": {name: profile_chart(mask_fractions, positions, "bits/dim")},
            "calibration": {name: calibration_chart(calibration)},
        },
        galleries=[
            SampleGallery("small", [PageImage(PNG, "Unmasking"), PageImage(PNG, "Samples", ["zero", "one", "zero"])]),
            SampleGallery(run, text="a sample", infilling=[FILLED], files=[PATH]),
        ],
        params="seed: 0\n",
        params_file=PATH,
        md5={PATH: MD5}.__getitem__,
    )


@pytest.fixture(scope="module")
def page() -> str:
    return report_page(report())


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_equal_reports_give_equal_pages(page: str) -> None:
    assert report_page(report()) == page


def test_the_page_names_no_other_file_but_those_of_its_numbers(outline: Outline) -> None:
    assert {"link", "iframe"}.isdisjoint(tag for tag, _ in outline.tags)
    for tag, attributes in outline.tags:
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert tag != "script" or "src" not in attributes
    assert {link["href"] for link in outline.all("a")} == {
        f"../{PATH}",
        *(f"#{heading['id']}" for heading in outline.all("h2")),
    }


def test_every_number_links_to_its_file_and_hash(page: str, outline: Outline) -> None:
    cells = re.findall(r"<td[^>]*data-value=[^>]*>(.*?)</td>", page)
    numbers = [cell for cell in cells if cell]
    assert len(numbers) > 40
    assert all(cell.startswith(f'<a href="../{PATH}" title="{PATH}, MD5 {MD5}">') for cell in numbers)
    assert MD5[:8] in outline.text


def test_tables_have_every_column_that_is_not_empty(page: str) -> None:
    headings = re.search(r'id="likelihood".*?<thead>(.*?)</thead>', page, re.DOTALL)
    assert headings is not None
    shown = re.findall(r"<button[^>]*>(.*?)</button>", headings[1])
    frame = report().tables["likelihood"].drop(FILE)
    filled = [name for name in frame.columns if frame[name].count() and not name.endswith("stderr")]
    assert len(shown) == len(filled)
    assert {"stderr mc", "reconstruction", "prior", "diffusion", "MC samples", "parameters", "seed"} <= set(shown)


def test_important_columns_come_first_and_references_have_names(page: str) -> None:
    shown = to_display(report().tables["likelihood"], complete=True)
    assert shown.headings[:6] == ["run", "value", "unit", "estimator", "dataset", "split"]
    after = shown.headings.index("parameters") + 1  # The columns that otherwise only the CSV file has.
    assert {"modality", "stderr mc", "clusters", "tokens", "seed"} <= set(shown.headings[after:])
    assert [row[0] for row in shown.rows] == ["pieces", "png", "unigram", "webp"]
    assert "<span>unigram</span>" in page


def test_numbers_samples_facts_and_definitions_are_there(outline: Outline) -> None:
    terms = [term for term, _ in definitions()]
    for expected in (
        "This page compares 1 run on 1 data set.",
        "lower is better",
        "Lowest on digits (test split): pieces with 2.21 ± 0.02 bits/dim.",
        "31 minutes",
        "the cat sat",
        "the dog sat",
        "cd3c4b6",
        "2.21 ± 0.02",
        "numpy_docs",
        "a sample",
        "seed: 0",
        "61.50",
        *terms,
    ):
        assert expected in outline.text
    assert "Samples. Classes, row by row: zero, one, zero" in outline.text


def test_classes_are_named_by_column_if_all_rows_agree() -> None:
    assert PageImage(PNG, "", ["a", "b", "a", "b", "a"], columns=2).class_caption == "Classes of the columns: a, b"
    assert PageImage(PNG, "", ["a", "b", "a"], columns=3).class_caption == "Classes, row by row: a, b, a"
    assert PageImage(PNG, "", ["a", "b", "b", "a"], columns=2).class_caption == "Classes, row by row: a, b; b, a"


def test_results_come_before_settings_and_graph(page: str) -> None:
    titles = [heading["id"] for heading in Outline(page).all("h2")]
    assert titles[:4] == ["likelihood", "zero-shot", "training", "samples"]
    assert titles[-1] == "settings"
    assert re.findall(r'href="#([^"]*)"', page.split("<nav")[1].split("</nav>")[0]) == titles


def settings_rows(runs: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the rows of the tables of differing and of common settings."""
    page = report_page(replace(report(), settings=settings_table(runs))).replace("<wbr>", "")
    section = page.split('id="settings"')[1]
    rows = re.findall(r'<th scope="row"><span>(.*?)</span></th>(.*?)</tr>', section, re.DOTALL)
    values = [(name, ", ".join(re.findall(r"<td[^>]*>(.*?)</td>", cells))) for name, cells in rows]
    same = section.index("Settings with one value")
    count = len(re.findall('<th scope="row">', section[:same]))
    return dict(values[:count]), dict(values[count:])


def test_only_settings_with_several_values_differ() -> None:
    """A setting that a run does not have is no value, but null is one, also if it is the section's."""
    small = {"train": {"steps": 5, "rate": 1e-3}, "sample": {"top_k": None}, "network": {"kind": "a"}, "cond": None}
    large = {"train": {"steps": 6, "rate": 1e-3}, "sample": {"top_k": 9}, "network": {"kind": "b", "size": 3}}
    differ, same = settings_rows({"small": small, "large": large | {"cond": {"dropout": 0.1}}})
    assert differ == {
        "cond.dropout": "none, 0.1",
        "network.kind": "a, b",
        "sample.top_k": "none, 9",
        "train.steps": "5, 6",
    }
    assert same == {"network.size": "3, 1 of 2", "train.rate": "0.001, 2 of 2"}


def test_axes_of_calibration_have_quantity_and_unit() -> None:
    (spec,) = report().by_dataset["calibration"]["digits"].to_specs()
    layers = [layer["encoding"] for layer in spec["layer"]]
    for axis, title in (
        ("x", "probability of the most probable token (%)"),
        ("y", "how often it is the true token (%)"),
    ):
        assert title in [encoding[axis].get("title") for encoding in layers]


def test_marks_of_learned_schedules_are_explained() -> None:
    """The gray line and the labels, on the page only: the figure has them without a legend."""
    exponents = exponents_frame(["a", " "], [0.5, 1.5]).with_columns(run=pl.lit("pieces"))
    chart = exponents_chart({"pieces": exponents}, {"pieces": False})
    page = report_page(replace(report(), figures={"exponents": chart}))
    assert "The gray line is the mean over all tokens of the run" in page
    assert "␣ is a space" in page


def test_a_run_worse_than_unigram_has_a_note(page: str) -> None:
    assert "how frequent each symbol is" not in page
    rates = [rate("unigram", "bits/dim", 2.2, 0.02)]
    worse = with_means(
        likelihood_table([evaluation("pieces", "digits")], [encoding("digits", rates)]),
        {"pieces": ["pieces"]},
        HELD_OUT_COLUMNS,
    )
    text = Outline(report_page(replace(report(), tables=report().tables | {"likelihood": with_file(worse)}))).text
    note = "pieces needs more bits than a model that only knows how frequent each symbol is"
    assert f"{note}: 2.213 bits/dim on digits, not 2.2." in text


def test_a_screen_reader_finds_language_regions_and_headings(outline: Outline) -> None:
    assert outline.all("html") == [{"lang": "en"}]
    assert {"main", "nav", "h1"} <= {tag for tag, _ in outline.tags}
    assert {heading.get("scope") for heading in outline.all("th")} == {"col", "row"}
    assert all(image["alt"] for image in outline.all("img"))


def test_commands_in_the_facts_are_code(outline: Outline) -> None:
    assert "cd3c4b6, mdpipe bench stages" in outline.text
    assert "`" not in outline.text


def test_empty_sections_are_left_out() -> None:
    full = report()
    empty = replace(full, tables={}, figures={}, by_dataset={name: {} for name in full.by_dataset}, galleries=[])
    titles = [heading["id"] for heading in Outline(report_page(empty)).all("h2")]
    assert titles == ["what-the-numbers-mean", "settings"]


def test_a_suite_without_published_data_says_so() -> None:
    full = report()
    page = report_page(replace(full, tables=full.tables | {"published": pl.DataFrame(schema=COMPARED)}))
    assert "Not comparable: results/published.csv has no result on the sources of this suite (digits)" in page
    assert 'id="published-numbers"' not in report_page(full)


def test_names_and_texts_cannot_become_markup() -> None:
    filled = [dict.fromkeys(FILLED, EVIL)]
    gallery = SampleGallery(EVIL, [PageImage(PNG, EVIL, [EVIL])], text=EVIL, infilling=filled)
    hostile = replace(report(EVIL, EVIL), galleries=[gallery], params=EVIL, facts={EVIL: Sourced(EVIL, PATH)})
    outline = Outline(report_page(hostile))
    scripts = [script.get("type") for script in outline.all("script")]
    assert scripts.count("module") == 1
    assert set(scripts) == {"module", "application/json"}
    assert outline.text.count(EVIL) >= 12


def test_a_card_has_the_runs_numbers_and_valid_metadata() -> None:
    card = model_card("pieces", report())
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "mdpipe",
        "tags": ["masked-diffusion", "image"],
        "datasets": ["digits"],
    }
    for expected in (
        "905,000 parameters",
        "2.21 ± 0.02",
        "| train.steps",
        f"| [{PATH}](../../{PATH}) | {MD5} |",
        "unigram",
    ):
        assert (expected in body) == (expected != "unigram")
