from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting import svg
from mdpipe.reporting.exponents_figure import EXTREMES, MOST_SYMBOLS, exponents_figure
from tests.reporting.records import exponents_frame

SVG = "{http://www.w3.org/2000/svg}"
LETTERS = list(" abcdefghijklmnopqrstuvwxyz")
SPREAD = [0.5 + (7 * at % 27) / 27 for at in range(27)]
"""27 exponents in no order."""


def drawn(symbols, exponents, ordered=False) -> str:
    return exponents_figure({"run": exponents_frame(symbols, exponents)}, {"run": ordered})


def texts(figure: str) -> list[tuple[str, float, float]]:
    found = ElementTree.fromstring(figure).iter(f"{SVG}text")
    return [(element.text or "", float(element.attrib["x"]), float(element.attrib["y"])) for element in found]


def words(figure: str) -> list[str]:
    return [text for text, *_ in texts(figure)]


def dots(figure: str) -> list[tuple[float, float]]:
    return [
        (float(dot.attrib["cx"]), float(dot.attrib["cy"]))
        for dot in ElementTree.fromstring(figure).iter(f"{SVG}circle")
    ]


def lines(figure: str, kind: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in ElementTree.fromstring(figure).iter(f"{SVG}polyline")
        if kind in line.attrib["class"].split()
    ]


def mean_time_of_reveal(exponent: float) -> float:
    """By integration: a token is still masked at t with probability t^w, so it was revealed above t with 1 - t^w."""
    times = np.linspace(0, 1, 100_001)
    return float(np.trapezoid(1 - times**exponent, times))


def test_what_sampling_reveals_sooner_is_drawn_nearer_to_revealed_early():
    """Sampling runs from time 1 to 0, so what is revealed at a larger time is revealed sooner."""
    exponents = [0.4, 1.9, 1.0, 0.7, 1.3]
    figure = drawn(list("abcde"), exponents)
    (late, *_), (early, *_) = ([x for text, x, _ in texts(figure) if word in text] for word in ("late", "early"))
    assert late < early
    by_time = sorted(zip(exponents, "abcde", strict=True), key=lambda pair: -mean_time_of_reveal(pair[0]))
    assert [text for text in words(figure) if text in set("abcde")] == [symbol for _, symbol in by_time]
    left = [x for x, _ in dots(figure)[:3]]
    assert left == sorted(left, reverse=True)

    curve = drawn([str(level) for level in range(41)], [0.5] * 20 + [1.5] * 21, ordered=True)
    (line,) = lines(curve, "series")
    above, below = line[-1][1], line[0][1]
    (high,), (low,) = ([y for text, _, y in texts(curve) if word in text] for word in ("early", "late"))
    assert above < below
    assert abs(high - above) < abs(high - below)
    assert abs(low - below) < abs(low - above)


def test_every_letter_is_shown_with_its_exponent_the_largest_first():
    figure = drawn(LETTERS, SPREAD)
    falling = [
        "␣" if letter == " " else letter for _, letter in sorted(zip(SPREAD, LETTERS, strict=True), reverse=True)
    ]
    assert [text for text in words(figure) if len(text) == 1 and text not in "01"] == falling
    xs = np.array([x for x, _ in dots(figure)])
    first, second = np.split(xs, [14])
    for shown, exponents in ((first, sorted(SPREAD)[::-1][:14]), (second, sorted(SPREAD)[::-1][14:])):
        slope = (shown[0] - shown[-1]) / (exponents[0] - exponents[-1])
        assert shown == pytest.approx(shown[0] + slope * (np.array(exponents) - exponents[0]), abs=0.11)


def test_a_dot_stands_beside_its_symbol():
    figure = drawn(LETTERS, SPREAD)
    heights = [y for text, _, y in texts(figure) if len(text) == 1 and text not in "01"]
    assert [y for _, y in dots(figure)] == pytest.approx([height - 4 for height in heights])


def test_of_many_pieces_the_two_ends_are_shown():
    count = MOST_SYMBOLS + 1
    figure = drawn([f"piece{at}" for at in range(count)], [1 + at / 100 for at in range(count)])
    ends = [*range(count - 1, count - 1 - EXTREMES, -1), *range(EXTREMES - 1, -1, -1)]
    assert [text for text in words(figure) if text.startswith("piece")] == [f"piece{at}" for at in ends]
    assert len(dots(figure)) == 2 * EXTREMES


def test_many_ordered_levels_are_a_curve_along_them_whatever_the_order_of_rows():
    frame = exponents_frame([str(level) for level in range(256)], [1 + level % 5 for level in range(256)])
    figure = exponents_figure({"run": frame}, {"run": True})
    (curve,) = lines(figure, "series")
    assert len(curve) == 256
    xs = np.array([x for x, _ in curve])
    assert np.diff(xs) == pytest.approx((xs[-1] - xs[0]) / 255, abs=0.11)
    assert len({y for _, y in curve}) == 5
    assert exponents_figure({"run": frame.sample(fraction=1, shuffle=True, seed=1)}, {"run": True}) == figure


def test_the_grey_line_is_the_mean():
    figure = drawn(["a", "b", "c", "d"], [1.0, 1.2, 1.4, 2.4])
    assert "mean 1.500 of 4 tokens" in words(figure)
    (one, _), (two, _) = dots(figure)[2:]  # of 1.2 and 1.0
    (_, second) = lines(figure, "level")
    assert second[0][0] == pytest.approx(two + (one - two) / 0.2 * 0.5, abs=0.6)


@pytest.mark.parametrize(
    ("symbol", "shown"),
    [
        (" ", "␣"),
        (" the", "␣the"),
        ("\n", "⏎"),
        ("\t", "⇥"),
        ("\x07", "\\x07"),
        ("", "(empty)"),
        (None, "(empty)"),
        ("a_rather_long_piece", "a_rather_lon…"),
        ("<&>", "<&>"),
    ],
)
def test_symbols_that_leave_no_ink_are_marked_and_long_ones_cut(symbol, shown):
    assert shown in words(drawn([symbol], [1.0]))


@given(exponents=st.lists(st.floats(1e-3, 50), min_size=1, max_size=60), ordered=st.booleans())
def test_whatever_was_learned_stays_inside_the_figure(exponents, ordered):
    figure = drawn([f"s{at}" for at in range(len(exponents))], exponents, ordered)
    height = float(ElementTree.fromstring(figure).attrib["viewBox"].split()[3])
    marks = [*dots(figure), *[point for kind in ("series", "level") for line in lines(figure, kind) for point in line]]
    for x, y in marks:
        assert 0 <= x <= svg.WIDTH
        assert 0 <= y <= height


def test_runs_stand_below_each_other_by_name_and_the_same_each_time():
    frame = exponents_frame(LETTERS, SPREAD)
    frames = {"zeta_run": frame, "alpha_run": frame}
    figure = exponents_figure(frames, dict.fromkeys(frames, False))
    assert [text for text in words(figure) if text.endswith("_run")] == ["alpha_run", "zeta_run"]
    assert figure == exponents_figure(dict(reversed(frames.items())), dict.fromkeys(frames, False))


@pytest.mark.parametrize(
    ("frames", "error", "named"),
    [
        ({}, ValueError, "no exponents to draw"),
        ({"a": exponents_frame([], [])}, ValueError, "run 'a' has no exponents"),
        ({"a": pl.DataFrame({"token": [1]})}, MetricsError, "exponents of run 'a' have the columns"),
        ({"a": exponents_frame(["1"], [1.0]).cast({"symbol": pl.Int64})}, MetricsError, "symbol"),
    ],
)
def test_nothing_to_draw_and_columns_of_other_kinds_are_errors(frames, error, named):
    with pytest.raises(error, match=named):
        exponents_figure(frames, dict.fromkeys(frames, False))
