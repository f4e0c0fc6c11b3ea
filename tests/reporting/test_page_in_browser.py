"""The page in a browser: no errors, no requests, nothing cut off, and tables that sort and show more columns."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mdpipe.reporting.images import encode_png
from mdpipe.reporting.page import MAX_COLUMNS, PageImage, Report, SampleGallery, report_page
from tests.reporting.browser import CHROMIUM, browser
from tests.reporting.test_page import EVIL, PATH, report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

CLICK_A_MARK_OF_EACH_CHART = """
window.opened = [];
HTMLAnchorElement.prototype.dispatchEvent = function () { window.opened.push(this.getAttribute("href")); };
const marks = [...document.querySelectorAll(".vega")].map(
  panel => [...panel.querySelectorAll("path")].find(mark => mark.__data__?.href));
const linked = marks.filter(mark => mark);
linked.forEach(mark => mark.dispatchEvent(new MouseEvent("click", {bubbles: true})));
linked.length
"""
"""Vega follows a link by a click on an anchor that it makes; the number of charts with links is returned."""


CLIPPED_TEXTS = """
[...document.querySelectorAll(".vega svg")].flatMap(svg => {
  const end = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const at = text.getBoundingClientRect();
    return at.width && (at.left < end.left - 1 || at.right > end.right + 1);
  }).map(text => text.textContent);
})
"""


def panel_count(content: Report) -> int:
    charts = (content.figures, *content.by_dataset.values())
    return sum(len(chart.panels) for of_kind in charts for chart in of_kind.values())


@pytest.mark.parametrize("width", [1400, 390])
def test_a_browser_finds_no_error_and_asks_for_no_other_file(width: int, tmp_path: Path) -> None:
    path = tmp_path / "report" / "index.html"
    path.parent.mkdir()
    path.write_text(report_page(report(EVIL)), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        for dark in (False, True):
            tab.open(path, width=width, dark=dark)
            background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(18, 21, 27)" if dark else "rgb(255, 255, 255)")
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate(CLIPPED_TEXTS) == []
        figures = "[...document.querySelectorAll('.vega svg')]"
        assert tab.evaluate(f"{figures}.filter(x => x.getBoundingClientRect().right > innerWidth).length") == 0
        assert tab.evaluate(f"{figures}.length") == panel_count(report())
        assert tab.evaluate(CLICK_A_MARK_OF_EACH_CHART) == panel_count(report())
        assert tab.evaluate("window.opened") == [f"../{PATH}"] * panel_count(report())
        headers = "[...document.querySelectorAll('.sortable tbody th')].map(x => x.offsetWidth)"
        assert max(tab.evaluate(headers)) < max(0.45 * width, 200)
        assert {request for request in tab.requests if not request.startswith("data:")} == {path.as_uri()}
        assert tab.problems == []


def test_real_images_are_next_to_wide_samples(tmp_path: Path) -> None:
    wide = PageImage(encode_png(Image.new("L", (684, 276))), "wide")
    path = tmp_path / "index.html"
    path.write_text(report_page(replace(report(), galleries=[SampleGallery("digits", [wide, wide])])), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(path, width=1400)
        assert len(set(tab.evaluate("[...document.querySelectorAll('.gallery figure')].map(x => x.offsetTop)"))) == 1


def test_a_click_sorts_by_value_and_keeps_empty_cells_last(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(report_page(report()), encoding="utf-8")
    table = "document.querySelector('#likelihood ~ .table')"
    cells = f"[...{table}.querySelector('tbody').rows].map(row => row.cells[AT].innerText)"
    heading = f"{table}.querySelectorAll('th button')[AT].click()"
    with browser(tmp_path / "profile") as tab:
        tab.open(path, width=1400)
        names = tab.evaluate(f"[...{table}.querySelectorAll('th button')].map(x => x.textContent)")
        value, error = str(names.index("value")), str(names.index("stderr mc"))
        visible = f"[...{table}.querySelectorAll('thead th')].filter(x => x.offsetWidth).length"
        assert tab.evaluate(visible) == MAX_COLUMNS < len(names)
        tab.evaluate(f"{table}.querySelector('input').click()")
        assert tab.evaluate(visible) == len(names) + 1  # The last one is that of the files.
        for expected in (["2.21 ± 0.02", "3.30 ± 0.02", "3.700", "4.120"],) * 2:
            tab.evaluate(heading.replace("AT", value))
            found = tab.evaluate(cells.replace("AT", value))
            assert found in (expected, expected[::-1])
        assert found == expected[::-1]
        tab.evaluate(heading.replace("AT", error))
        assert tab.evaluate(cells.replace("AT", error))[1:] == [""] * 3
