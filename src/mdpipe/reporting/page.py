"""The report page and the model cards.

The page is one HTML file with every table, figure and sample in it: it needs no other file and no network, and its
policy forbids the browser to load any. Numbers link to the files that they come from.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mdpipe.reporting.charts import Chart, color_scheme
from mdpipe.reporting.images import COLUMNS
from mdpipe.reporting.markdown import format_measurement, format_number
from mdpipe.reporting.schemas import FILE, to_display, to_markdown
from mdpipe.reporting.tables import worse_than_unigram

FOLDER = Path(__file__).parent
MAX_COLUMNS = 12
"""Columns of a table of results that the page shows at first; a checkbox shows the others."""


@dataclass(frozen=True)
class PageImage:
    """The bytes of a PNG or GIF file, its caption, and the classes of its images in rows, if there are any."""

    content: bytes
    caption: str
    classes: Sequence[str] = ()
    columns: int = COLUMNS

    @property
    def class_caption(self) -> str:
        """Return the classes row by row, or those of the columns if all rows have the same ones."""
        rows = [self.classes[at : at + self.columns] for at in range(0, len(self.classes), self.columns)]
        if len(rows) > 1 and all(row == rows[0][: len(row)] for row in rows):
            return f"Classes of the columns: {', '.join(rows[0])}"
        return f"Classes, row by row: {'; '.join(', '.join(row) for row in rows)}"

    @property
    def data_uri(self) -> str:
        """Return the image as a data URI."""
        media = "gif" if self.content.startswith(b"GIF8") else "png"
        return f"data:image/{media};base64,{b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class SampleGallery:
    """The samples of a run: images, text and filled texts, each of which may be empty, and their files.

    A filled text is a held-out one with a filled span, in the parts `before`, `original`, `filled` and `after`.
    """

    run: str
    images: Sequence[PageImage] = ()
    text: str = ""
    infilling: Sequence[Mapping[str, str]] = ()
    files: Sequence[str] = ()


@dataclass(frozen=True)
class Sourced:
    """A text, and the file that its numbers come from, if it has any."""

    text: str
    file: str | None = None


@dataclass(frozen=True)
class Report:
    """The content of the page; an empty table or a missing figure is left out."""

    facts: Mapping[str, Sourced]
    """Provenance: commit, date, machine and times of the recorded run, seeds and versions."""
    tables: Mapping[str, pl.DataFrame]
    """Any of likelihood, steps_to_bound, claims, zero_shot, published, samplers, samples, image_quality, training,
    datasets and costs; with a column `FILE` unless rows have several files."""
    settings: pl.DataFrame
    """As of `settings_table`."""
    figures: Mapping[str, Chart]
    """Any of graph, likelihood, samplers and exponents."""
    by_dataset: Mapping[str, Mapping[str, Chart]]
    """Training `curves`, `profiles` (bits by masked fraction and by position) and `calibration`, by dataset."""
    galleries: Sequence[SampleGallery]
    params: str
    """The content of params.yaml without its comments, which must not change the page."""
    params_file: str
    """The file that the settings come from."""
    md5: Callable[[str], str]
    """Return the MD5 of a file that numbers come from, as dvc.lock has it."""

    def best_runs(self) -> Iterator[dict[str, Any]]:
        """Yield the row of the run with the lowest value on each dataset and split, with the lower `references`."""
        rows = self.tables["likelihood"].sort("value")
        best = rows.drop_nulls("run").unique(["dataset", "split"], keep="first").sort("dataset", "split")
        for row in best.iter_rows(named=True):
            is_lower = pl.col("run").is_null() & (pl.col("value") < row["value"])
            references = rows.filter(is_lower, dataset=row["dataset"], split=row["split"])
            yield {**row, "references": references.rows(named=True)}


def definitions() -> list[tuple[str, str]]:
    """Return the terms that tables and figures use, with their meanings."""
    _, _, *paragraphs = (FOLDER / "definitions.md").read_text(encoding="utf-8").split("\n\n")
    pairs = (" ".join(paragraph.split()).removeprefix("**").split("**: ") for paragraph in paragraphs)
    return [(term, meaning) for term, meaning in pairs]


def settings_table(runs: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Return one row per setting of any run, named as in params.yaml, and one column per run.

    A value is empty if params.yaml has null there, and null if the run has no such setting because of its `kind`.
    """
    frame = pl.json_normalize(list(runs.values()), infer_schema_length=None).cast(pl.String)
    names = sorted(name for name in frame.columns if not any(other.startswith(f"{name}.") for other in frame.columns))
    columns = {"setting": names}
    for (run, settings), row in zip(runs.items(), frame.iter_rows(named=True), strict=True):
        # If a section is null, so are all of its settings.
        known = tuple(f"{name}." for name in pl.json_normalize(dict(settings), infer_schema_length=None).columns)
        columns[run] = ["" if row[name] is None and f"{name}.".startswith(known) else row[name] for name in names]
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def report_page(report: Report) -> str:
    """Render page.html.j2; equal reports give equal bytes."""
    values = pl.concat_list(pl.exclude("setting").replace("", "none")).list.drop_nulls()
    differs, count = values.list.n_unique() > 1, values.list.len()
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    script = bundle.replace("</script", "<\\/script")
    return _render(
        "page.html.j2",
        autoescape=True,
        report=report,
        FILE=FILE,
        definitions=definitions(),
        max_columns=MAX_COLUMNS,
        different=report.settings.filter(differs).with_columns(pl.exclude("setting").replace("", "none")),
        same=report.settings.filter(~differs).select(
            "setting", value=values.list.first(), runs=pl.format("{} of {}", count, report.settings.width - 1)
        ),
        colors=color_scheme(),
        vega=Markup(script),
    )


def model_card(run: str, report: Report) -> str:
    """Render card.md.j2: the model, its training and its numbers, in the Markdown of a model hub."""

    def rows(name: str) -> pl.DataFrame:
        return report.tables[name].filter(run=run)

    return _render(
        "card.md.j2",
        autoescape=False,
        run=run,
        seeds=rows("likelihood")["seeds"][0],
        training=rows("training").row(0, named=True),
        tables={name: to_markdown(rows(name)) for name in ("likelihood", "zero_shot", "samples") if rows(name).height},
        dataset=report.tables["datasets"].filter(dataset=rows("likelihood")["dataset"][0]),
        settings=report.settings.select("setting", value=run).filter(pl.col("value") != ""),
        files={
            file: report.md5(file)
            for table in report.tables.values()
            if {"run", FILE} <= set(table.columns)
            for file in table.filter(run=run)[FILE]
        },
    )


def _code(html: Markup) -> Markup:
    """Show text between backticks as code; the text is escaped already."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(html)))  # Markup would escape the tags


def _render(template: str, *, autoescape: bool, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "display": to_display,
        "markdown": to_markdown,
        "number": format_number,
        "code": _code,
        "measurement": lambda row: format_measurement(row["value"], row["stderr"]),
        "worse_than_unigram": worse_than_unigram,
    }
    return environment.get_template(template).render(values)
