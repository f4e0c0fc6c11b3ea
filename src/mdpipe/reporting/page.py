"""The report page: one HTML file with every table, figure and sample in it, readable on a phone and in the dark."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import polars as pl

from mdpipe.reporting.conventions import CONVENTIONS
from mdpipe.reporting.curves_figure import training_curves_figure
from mdpipe.reporting.exponents_figure import exponents_figure
from mdpipe.reporting.likelihood_figure import likelihood_figure
from mdpipe.reporting.page_style import STYLE
from mdpipe.reporting.samplers_figure import samplers_figure
from mdpipe.reporting.written import readable

IMAGE_TYPES = {b"\x89PNG": "image/png", b"GIF8": "image/gif"}


@dataclass(frozen=True)
class Exhibit:
    """What a run drew: pictures (the bytes of PNG or GIF files) and text, either of which may be empty."""

    run: str
    pictures: Sequence[bytes] = ()
    text: str = ""
    classes: Sequence[str] = ()
    """The name of each sample's class, in the order of the samples; empty where classes have no names."""


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    likelihood: pl.DataFrame
    zero_shot: pl.DataFrame
    samples: pl.DataFrame
    training: pl.DataFrame
    curves: Mapping[str, pl.DataFrame]
    exhibits: Sequence[Exhibit]
    params: str
    """What params.yaml says, whatever the order of its keys: the page must not change with a comment."""
    versions: Mapping[str, str]
    """Version of each package that the numbers depend on."""
    samplers: pl.DataFrame = field(default_factory=pl.DataFrame)
    datasets: pl.DataFrame = field(default_factory=pl.DataFrame)
    exponents: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Of the runs that learned their schedule."""


def report_page(report: Report) -> str:
    """Write the page; it needs no other file and no network, and equal reports give equal bytes.

    Raises:
        ValueError: a picture is neither PNG nor GIF.
    """
    sections = {
        "Likelihood": _likelihood(report.likelihood),
        "Zero-shot": _table(report.zero_shot),
        "Samplers": _samplers(report.samplers),
        "Samples": "".join(map(_exhibit, report.exhibits)) + _table(report.samples),
        "Learned schedules": _exponents(report),
        "Training": _training(report),
        "Datasets": _table(report.datasets),
        "How the numbers are made": _terms(CONVENTIONS),
        "Params and versions": _provenance(report),
    }
    shown = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title in shown)
    body = "".join(f'<h2 id="{_anchor(title)}">{escape(title)}</h2>\n{body}' for title, body in shown.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mdpipe report</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>mdpipe report</h1>\n"
        '<p class="muted">Masked diffusion models of text and images: what was trained, how many bits it needs, '
        f"and what it draws.</p>\n<nav>{links}</nav>\n{body}</body>\n</html>\n"
    )


def _likelihood(frame: pl.DataFrame) -> str:
    return _chart(likelihood_figure(frame)) + _table(frame) if frame.height else ""


def _samplers(frame: pl.DataFrame) -> str:
    """The chart tells most of it, and the table has a row for every point: it unfolds."""
    if not frame.height:
        return ""
    return f"{_chart(samplers_figure(frame))}<details>\n<summary>The numbers</summary>\n{_table(frame)}</details>\n"


def _exponents(report: Report) -> str:
    """Levels of an image have an order, pieces of a text have none."""
    of_images = set(report.likelihood.filter(modality="image")["run"])
    if not report.exponents:
        return ""
    return _chart(exponents_figure(report.exponents, {run: run in of_images for run in report.exponents}))


def _training(report: Report) -> str:
    units = dict(report.training.select("run", "unit").iter_rows())
    return (_chart(training_curves_figure(report.curves, units)) if report.curves else "") + _table(report.training)


def _chart(figure: str) -> str:
    return f'<div class="chart">{figure}</div>\n'


def _exhibit(exhibit: Exhibit) -> str:
    images = "".join(
        f'<img src="{_data_uri(data, exhibit.run)}" alt="Samples of {escape(exhibit.run)}">'
        for data in exhibit.pictures
    )
    text = f"<pre>{escape(exhibit.text)}</pre>\n" if exhibit.text else ""
    names = ", ".join(dict.fromkeys(exhibit.classes))  # The samples take the classes in turn.
    caption = f'<p class="muted">Classes in turn, row by row: {escape(names)}.</p>\n' if names else ""
    return f'<h3>{escape(exhibit.run)}</h3>\n<div class="exhibit">{images}</div>\n{caption}{text}'


def _provenance(report: Report) -> str:
    versions = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(version)}</td></tr>\n"
        for name, version in sorted(report.versions.items())
    )
    return (
        f'<div class="scroll"><table>\n<tr><th>package</th><th>version</th></tr>\n{versions}</table></div>\n'
        f"<details>\n<summary>params.yaml</summary>\n<pre>{escape(report.params)}</pre>\n</details>\n"
    )


def _table(frame: pl.DataFrame) -> str:
    if not frame.height:
        return ""
    table = readable(frame)
    rows = [_row("th", table.headings, table.numeric, reference=False)]
    rows += [
        _row("td", row, table.numeric, reference=reference)
        for row, reference in zip(table.rows, table.references, strict=True)
    ]
    return f'<div class="scroll"><table>\n{"".join(rows)}</table></div>\n'


def _row(tag: str, cells: Sequence[str], numeric: Sequence[bool], *, reference: bool) -> str:
    opening = [f'<{tag} class="number">' if right else f"<{tag}>" for right in numeric]
    inner = "".join(f"{start}{escape(cell)}</{tag}>" for start, cell in zip(opening, cells, strict=True))
    return f'<tr class="reference">{inner}</tr>\n' if reference else f"<tr>{inner}</tr>\n"


def _terms(pairs: Sequence[tuple[str, str]]) -> str:
    return (
        "<dl>\n"
        + "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>\n" for term, meaning in pairs)
        + "</dl>\n"
    )


def _data_uri(data: bytes, run: str) -> str:
    if (media := IMAGE_TYPES.get(data[:4])) is None:
        raise ValueError(f"a picture of run {run!r} is neither PNG nor GIF: it starts with {data[:4]!r}")
    return f"data:{media};base64,{b64encode(data).decode('ascii')}"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
