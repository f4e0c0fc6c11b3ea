from itertools import pairwise
from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.reporting import svg
from mdpipe.reporting.samplers_figure import samplers_figure
from mdpipe.reporting.samplers_table import samplers_comparison
from tests.reporting.records import judged, judged_frame

SVG = "{http://www.w3.org/2000/svg}"
STEPS = (8, 16, 32, 64, 128)


def comparison(*rows) -> pl.DataFrame:
    runs = sorted({row["run"] for row in rows})
    return samplers_comparison({run: judged_frame([row for row in rows if row["run"] == run]) for run in runs})


def elements(figure: str, tag: str, kind: str) -> list[dict[str, str]]:
    """Attributes of the elements whose classes include `kind`."""
    found = ElementTree.fromstring(figure).iter(f"{SVG}{tag}")
    return [element.attrib for element in found if kind in element.attrib.get("class", "").split()]


def points(figure: str, kind: str) -> list[list[tuple[float, float]]]:
    lines = elements(figure, "polyline", kind)
    return [[tuple(map(float, point.split(","))) for point in line["points"].split()] for line in lines]


def circles(figure: str) -> list[tuple[float, float]]:
    return [(float(mark["cx"]), float(mark["cy"])) for mark in elements(figure, "circle", "marker")]


def texts(figure: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure).iter(f"{SVG}text")]


def test_twice_the_network_calls_are_always_as_far_to_the_right():
    xs = [x for x, _ in circles(samplers_figure(comparison(*[judged("a", "euler", steps) for steps in STEPS])))[:-1]]
    assert len(xs) == len(STEPS)
    steps = [after - before for before, after in pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 4, abs=0.25)
    assert steps[0] > 0


def test_bits_error_bars_and_the_line_of_the_data_share_one_scale():
    rows = [judged("a", "euler", 8, bits=4.0, bits_stderr=0.5), judged("a", "euler", 64, bits=3.0, bits_stderr=0.1)]
    figure = samplers_figure(comparison(*rows, judged("a", "data", None, bits=2.0)))
    (_, at_four), (_, at_three), *_ = circles(figure)
    (data, *_), bit = points(figure, "level"), at_three - at_four
    assert bit > 0, "fewer bits stand lower"
    assert [y for _, y in data] == pytest.approx([at_three + bit] * 2, abs=0.25)
    _, first, second, _ = points(figure, "series")
    assert [y for _, y in first] == pytest.approx([at_four + bit / 2, at_four - bit / 2], abs=0.25)
    assert [y for _, y in second] == pytest.approx([at_three + bit / 10, at_three - bit / 10], abs=0.25)


def test_a_line_goes_from_few_network_calls_to_many_and_a_sampler_without_a_grid_is_a_point():
    rows = [judged("a", "a_few", steps) for steps in reversed(STEPS)] + [judged("a", "b_one", None)]
    figure = samplers_figure(comparison(*rows))
    line, *_ = points(figure, "series")
    assert line == circles(figure)[:5]
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert len(elements(figure, "rect", "marker") + elements(figure, "polygon", "marker")) == 2, "with its legend"


def test_every_run_has_a_panel_that_names_its_judge_and_its_unit():
    rows = [judged("b", "euler", 8, judge="critic_b", unit="bits/token"), judged("a", "euler", 8)]
    shown = texts(samplers_figure(comparison(*rows)))
    assert [text for text in shown if text in ("a", "b", "bits/char under critic", "bits/token under critic_b")] == [
        "a",
        "bits/char under critic",
        "b",
        "bits/token under critic_b",
    ]


@pytest.mark.parametrize("count", [1, 8, 40])
def test_samplers_look_different_and_alike_in_every_panel(count):
    names = [f"sampler{at:02}" for at in range(count)]
    figure = samplers_figure(comparison(*[judged(run, name, 8) for run in "ab" for name in names]))
    markers = [
        (element.attrib["class"], outline(element))
        for element in ElementTree.fromstring(figure).iter()
        if "marker" in element.attrib.get("class", "").split()
    ]
    assert markers[:count] == markers[count : 2 * count] == markers[2 * count :]
    assert len(set(markers)) == count


def outline(element) -> str:
    """The form of a marker wherever it stands: on which sides of its first corner the others are."""
    corners = [tuple(map(float, point.split(","))) for point in element.attrib.get("points", "").split()]
    sides = [(x > corners[0][0], x < corners[0][0], y > corners[0][1], y < corners[0][1]) for x, y in corners]
    return f"{element.tag} {sides}"


@pytest.mark.parametrize("letters", [1, 12, 30, 100])
def test_the_legend_names_everything_once_and_nothing_twice_in_a_place(letters):
    names = [f"{letter * letters}" for letter in "abcdefgh"]
    figure = samplers_figure(comparison(*[judged("run", name, 8) for name in names]))
    entries = [
        (float(text.attrib["x"]), float(text.attrib["y"]), text.text)
        for text in ElementTree.fromstring(figure).iter(f"{SVG}text")
        if text.text in (*names, "held-out data")
    ]
    assert [name for *_, name in entries] == [*names, "held-out data"]
    for (x, y, name), (following, below, _) in pairwise(entries):
        assert following >= x + 6 * len(name) or below > y


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 10**6), st.floats(0, 40), st.floats(0, 10)),
        min_size=1,
        max_size=6,
        unique_by=lambda r: r[0],
    )
)
def test_whatever_was_measured_stays_inside_the_figure(rows):
    measured = [
        judged("a", "euler", steps, bits=bits, bits_stderr=error, network_calls=steps) for steps, bits, error in rows
    ]
    figure = samplers_figure(comparison(*measured, judged("a", "data", None)))
    height = float(ElementTree.fromstring(figure).attrib["viewBox"].split()[3])
    for x, y in [*circles(figure), *[point for line in points(figure, "series") for point in line]]:
        assert 0 <= x <= svg.WIDTH
        assert 0 <= y <= height


def test_the_data_alone_can_be_drawn():
    figure = samplers_figure(comparison(judged("a", "data", None)))
    assert len(points(figure, "level")) == 2, "in the panel and in the legend"


def test_figures_are_the_same_each_time_and_names_are_escaped():
    name = "<b>&\"'"
    table = comparison(judged(name, name, 8, judge=name))
    assert samplers_figure(table) == samplers_figure(table)
    assert name in texts(samplers_figure(table))


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        samplers_figure(samplers_comparison({}))
