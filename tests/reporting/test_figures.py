"""Figures show the data of the tables, and every panel has axis labels with units and a legend."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.figures import (
    EXTREMES,
    MAX_SYMBOLS,
    exponents_chart,
    likelihood_chart,
    samplers_chart,
    training_chart,
)
from mdpipe.reporting.style import MAX_TICKS, MEAN, MODEL, Chart
from mdpipe.reporting.tables import likelihood_table, samplers_table
from tests.reporting.records import (
    IMAGE_RATES,
    TEXT_RATES,
    encoding,
    evaluation,
    exponents_frame,
    scored,
    scored_frame,
)

pytestmark = pytest.mark.slow

UNITS = {"a": "bits/dim", "b": "bits/char", "c": "bits/token"}
STEPS = (8, 16, 32, 64, 128)
LETTERS = list(" abcdefghijklmnopqrstuvwxyz")
SPREAD = [0.5 + (7 * at % 27) / 27 for at in range(27)]
"""27 exponents in no order."""


def likelihood() -> pl.DataFrame:
    evaluations = [evaluation("small", "digits"), evaluation("pieces", "docs", "text")]
    return likelihood_table(evaluations, [encoding("digits", IMAGE_RATES), encoding("docs", TEXT_RATES)])


def curve(losses: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"step": [7 * (at + 1) for at in range(len(losses))], "train/loss": losses})


def curves() -> dict[str, pl.DataFrame]:
    return {"b": curve([4.0, 3.0, 2.5, 2.4]), "a": curve([8.0]), "c": curve([1.0] * 30)}


def compared(*rows) -> pl.DataFrame:
    runs = sorted({row["run"] for row in rows})
    return samplers_table({run: scored_frame([row for row in rows if row["run"] == run]) for run in runs})


def schedule(symbols, exponents, ordered=False) -> Chart:
    return exponents_chart({"run": exponents_frame(symbols, exponents)}, {"run": ordered})


CHARTS = {
    "likelihood": lambda: likelihood_chart(likelihood()),
    "training": lambda: training_chart(curves(), UNITS),
    "samplers": lambda: samplers_chart(compared(*[scored("a", name, 8) for name in ("euler", "data")])),
    "exponents": lambda: schedule(LETTERS, SPREAD),
    "exponents of levels": lambda: schedule([str(level) for level in range(256)], np.linspace(1, 2, 256), ordered=True),
}


def panels(chart: Chart) -> dict[str, Axes]:
    """Return the panels by title."""
    return {axes.get_title("left"): axes for axes in chart.figure.axes}


def legend(chart: Chart) -> list[str]:
    (shown,) = chart.figure.legends
    return [text.get_text() for text in shown.get_texts()]


def names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def bar_lengths(axes: Axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def series(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Return x and y of every line with markers."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines if line.get_marker() != "None"]


def error_bars(axes: Axes) -> list[np.ndarray]:
    """Return the ends (2, 2) of every error bar."""
    return [segment for bars in axes.collections for segment in bars.get_segments()]


def mean_line(axes: Axes) -> list[float]:
    (line,) = [line for line in axes.lines if line.get_color() == MEAN]
    return sorted({*line.get_xdata(), *line.get_ydata()} - {0, 1})


@pytest.mark.parametrize("name", CHARTS)
def test_every_panel_has_labeled_axes_and_a_legend(name):
    chart = CHARTS[name]()
    assert legend(chart)
    assert chart.alt.endswith(".")
    for axes in chart.figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel() or names(axes)


@pytest.mark.parametrize("name", CHARTS)
def test_two_runs_give_the_same_bytes(name):
    assert CHARTS[name]().to_svg() == CHARTS[name]().to_svg()


def test_bars_are_the_bits_of_the_table_the_fewest_on_top():
    axes = panels(likelihood_chart(likelihood()))["digits"]
    assert names(axes) == ["small", "unigram", "webp", "png"]
    assert bar_lengths(axes) == [2.2134, 3.3, 3.7, 4.12]
    assert axes.yaxis.get_inverted()
    assert [bar.get_facecolor() == axes.patches[0].get_facecolor() for bar in axes.patches] == [True] + [False] * 3
    assert [text.get_text() for text in axes.texts] == ["2.21 ± 0.02", "3.30 ± 0.02", "3.700", "4.120"]


def test_error_bars_of_the_likelihood_are_one_standard_error():
    bars = error_bars(panels(likelihood_chart(likelihood()))["digits"])
    assert [bar[:, 0].tolist() for bar in bars] == [
        pytest.approx([2.2134 - 0.021, 2.2134 + 0.021]),
        pytest.approx([3.28, 3.32]),
    ]


def test_text_is_in_bits_per_byte_and_images_in_their_own_unit():
    shown = panels(likelihood_chart(likelihood()))
    assert {dataset: axes.get_xlabel() for dataset, axes in shown.items()} == {
        "digits": "bits/dim",
        "docs": "bits/byte",
    }
    assert bar_lengths(shown["docs"]) == [2.1181, 2.31, 2.9]
    assert {axes.get_title("right") for axes in shown.values()} == {"test"}


def test_a_bar_says_that_its_bound_was_given_the_class_label():
    evaluations = [evaluation("plain", "digits"), evaluation("conditional", "digits", class_cond="class label")]
    (axes,) = likelihood_chart(likelihood_table(evaluations, [])).figure.axes
    assert names(axes) == ["conditional, class label", "plain"]


def test_long_names_have_room_beside_their_bars():
    runs = ["letters", "letters_genmd4", "letters_autoregressive", "letters_any_order", "letters_score_entropy"]
    evaluations = [evaluation(run, "docs", "text", bits_per_byte=3 - at / 100) for at, run in enumerate(runs)]
    chart = likelihood_chart(likelihood_table(evaluations, [encoding("docs", TEXT_RATES)]))
    chart.to_svg()
    (axes,) = chart.figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= axes.get_window_extent().x0
    assert all(text.get_window_extent().x1 <= chart.figure.bbox.x1 for text in axes.texts)


def test_a_training_panel_has_the_losses_and_unit_of_its_run():
    shown = panels(training_chart(curves(), UNITS))
    assert list(shown) == ["a", "b", "c"]
    assert [axes.get_ylabel() for axes in shown.values()] == [f"loss ({unit})" for unit in UNITS.values()]
    recorded, smoothed = shown["b"].lines
    assert list(recorded.get_xdata()) == [7, 14, 21, 28]
    assert list(recorded.get_ydata()) == [4.0, 3.0, 2.5, 2.4]
    assert list(smoothed.get_ydata()) == pytest.approx([4.0, 9.5 / 3, 11.9 / 4, 11.9 / 4])
    assert smoothed.get_color() == MODEL


@settings(deadline=None, max_examples=20)
@given(losses=st.lists(st.floats(0.001, 30), min_size=1, max_size=60))
def test_the_smoothed_curve_stays_inside_its_panel(losses):
    (axes,) = training_chart({"run": curve(losses)}, {"run": "bits/dim"}).figure.axes
    low, high = axes.get_ylim()
    smoothed = axes.lines[1].get_ydata()
    assert low <= min(losses)
    assert max(smoothed) <= high
    assert axes.get_xlim()[1] >= 7 * len(losses)


def test_samplers_show_bits_by_nfe_with_their_errors():
    rows = [scored("a", "euler", 8, bits=4.0, bits_stderr=0.5), scored("a", "euler", 64, bits=3.0, bits_stderr=0.1)]
    (axes,) = samplers_chart(compared(*rows, scored("a", "data", None, bits=2.0))).figure.axes
    assert series(axes) == [([8, 64], [4.0, 3.0])]
    assert [bar[:, 1].tolist() for bar in error_bars(axes)] == [[3.5, 4.5], pytest.approx([2.9, 3.1])]
    assert mean_line(axes) == [2.0]


def test_doubling_the_nfe_is_always_the_same_distance():
    (axes,) = samplers_chart(compared(*[scored("a", "euler", steps) for steps in STEPS])).figure.axes
    places = axes.transData.transform([(steps, 2) for steps in STEPS])[:, 0]
    assert np.diff(places) == pytest.approx(np.diff(places)[0])
    assert list(axes.get_xticks()) == list(STEPS)


@given(low=st.integers(1, 10**5), factor=st.integers(1, 10**6))
@settings(deadline=None, max_examples=20)
def test_ticks_of_calls_are_few_powers_of_two_evenly_apart(low, factor):
    rows = [scored("a", "euler", steps, nfe=steps) for steps in {low, low * factor}]
    (axes,) = samplers_chart(compared(*rows)).figure.axes
    ticks = [int(tick) for tick in axes.get_xticks()]
    assert 1 <= len(ticks) <= MAX_TICKS
    assert all(tick.bit_count() == 1 for tick in ticks)
    assert len({after / before for before, after in pairwise(ticks)}) <= 1
    assert axes.get_xlim()[0] <= ticks[0] <= ticks[-1] <= axes.get_xlim()[1]


def test_a_line_goes_to_more_calls_and_no_grid_is_a_point():
    rows = [scored("a", "a_few", steps) for steps in reversed(STEPS)] + [scored("a", "b_one", None)]
    (axes,) = samplers_chart(compared(*rows)).figure.axes
    (many, _), (one, _) = series(axes)
    assert many == list(STEPS)
    assert one == [64]


def test_every_panel_names_its_run_reference_model_and_unit():
    rows = [scored("b", "euler", 8, reference_model="critic_b", unit="bits/token"), scored("a", "euler", 8)]
    labels = {run: axes.get_ylabel() for run, axes in panels(samplers_chart(compared(*rows))).items()}
    assert labels == {"a": "bits/char under critic", "b": "bits/token under critic_b"}


@pytest.mark.parametrize("count", [1, 8, 40])
def test_samplers_look_different_and_the_same_in_every_panel(count):
    samplers = [f"sampler{at:02}" for at in range(count)]
    chart = samplers_chart(compared(*[scored(run, name, 8) for run in "ab" for name in samplers]))
    (shown,) = chart.figure.legends
    assert legend(chart) == [*samplers, "held-out data"]
    looks = [
        [(line.get_color(), line.get_marker()) for line in lines if line.get_marker() != "None"]
        for lines in (*(axes.lines for axes in chart.figure.axes), shown.legend_handles)
    ]
    assert looks[0] == looks[1] == looks[2]
    assert len(set(looks[0])) == count


@pytest.mark.parametrize("letters", [1, 12, 30, 100])
def test_the_legend_is_below_the_panels_and_inside_the_figure(letters):
    chart = samplers_chart(compared(*[scored("run", letter * letters, 8) for letter in "abcdefgh"]))
    chart.to_svg()
    (shown,) = chart.figure.legends
    box = shown.get_window_extent()
    assert box.y1 <= min(axes.get_tightbbox().y0 for axes in chart.figure.axes)
    assert letters > 30 or box.x1 <= chart.figure.bbox.x1


@settings(deadline=None, max_examples=20)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 10**6), st.floats(0, 40), st.floats(0, 10)),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row[0],
    )
)
def test_every_sampler_is_inside_its_panel_with_its_errors(rows):
    measured = [scored("a", "euler", steps, bits=bits, bits_stderr=error, nfe=steps) for steps, bits, error in rows]
    (axes,) = samplers_chart(compared(*measured, scored("a", "data", None))).figure.axes
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for x, y in np.concatenate([*error_bars(axes), [(left, value) for value in mean_line(axes)]]):
        assert left <= x <= right
        assert low <= y <= high


def test_the_chart_of_data_needs_no_sampler():
    chart = samplers_chart(compared(scored("a", "data", None)))
    assert legend(chart) == ["held-out data"]
    assert mean_line(*chart.figure.axes) == [2.0]


def mean_time_of_unmasking(exponent: float) -> float:
    """Integrate: a token is still masked at t with probability t^w, so it was unmasked above t with 1 - t^w."""
    times = np.linspace(0, 1, 100_001)
    return float(np.trapezoid(1 - times**exponent, times))


def test_tokens_unmasked_sooner_are_nearer_to_unmasked_early():
    """Sampling runs from time 1 to 0, so what is unmasked at a larger time is unmasked sooner."""
    exponents = [0.4, 1.9, 1.0, 0.7, 1.3]
    first, second = schedule(list("abcde"), exponents).figure.axes
    by_time = sorted(zip(exponents, "abcde", strict=True), key=lambda pair: -mean_time_of_unmasking(pair[0]))
    assert names(first) + names(second) == [symbol for _, symbol in by_time]
    (shown, _), *_ = series(first)
    assert shown == sorted(shown, reverse=True)
    for label in (first.get_xlabel(), schedule(LETTERS * 2, SPREAD * 2, ordered=True).figure.axes[0].get_ylabel()):
        assert label.index("late") < label.index("early")
    assert not first.xaxis.get_inverted()


def test_every_letter_has_its_exponent_the_largest_first():
    halves = schedule(LETTERS, SPREAD).figure.axes
    shown = {}
    for axes in halves:
        ((exponents, rows),) = series(axes)
        assert rows == list(axes.get_yticks()[: len(rows)])
        shown |= dict(zip(names(axes), exponents, strict=True))
    assert shown == {
        "␣" if letter == " " else letter: exponent for letter, exponent in zip(LETTERS, SPREAD, strict=True)
    }
    assert list(shown.values()) == sorted(SPREAD, reverse=True)
    assert halves[0].get_xlim() == halves[1].get_xlim()


def test_of_many_pieces_the_two_ends_are_shown():
    count = MAX_SYMBOLS + 1
    first, second = schedule([f"piece{at}" for at in range(count)], [1 + at / 100 for at in range(count)]).figure.axes
    ends = [*range(count - 1, count - 1 - EXTREMES, -1), *range(EXTREMES - 1, -1, -1)]
    assert names(first) + names(second) == [f"piece{at}" for at in ends]
    assert "the 15 largest" in first.get_xlabel()
    assert "the 15 smallest" in second.get_xlabel()


def test_many_ordered_levels_are_a_curve_along_them():
    exponents = [1.0 + level % 5 for level in range(256)]
    frame = exponents_frame([str(level) for level in range(256)], exponents)
    (axes,) = exponents_chart({"run": frame.sample(fraction=1, shuffle=True, seed=1)}, {"run": True}).figure.axes
    line, _ = axes.lines
    assert list(line.get_xdata()) == list(range(256))
    assert list(line.get_ydata()) == exponents
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "128", "255"]


def test_the_gray_line_is_the_mean():
    first, second = schedule(["a", "b", "c", "d"], [1.0, 1.2, 1.4, 2.4]).figure.axes
    assert second.get_title("right") == "mean 1.500 of 4 tokens"
    assert mean_line(first) == mean_line(second) == [1.5]


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
        ("$x$", "$x$"),
    ],
)
def test_invisible_symbols_are_marked_and_long_ones_cut(symbol, shown):
    assert names(schedule([symbol], [1.0]).figure.axes[0]) == [shown]


@settings(deadline=None, max_examples=20)
@given(exponents=st.lists(st.floats(1e-3, 50), min_size=1, max_size=60), ordered=st.booleans())
def test_every_exponent_is_inside_its_panel(exponents, ordered):
    for axes in schedule([f"s{at}" for at in range(len(exponents))], exponents, ordered).figure.axes:
        for x, y in [(x, y) for line in axes.lines[:1] for x, y in zip(*line.get_data(), strict=True)]:
            assert min(axes.get_xlim()) <= x <= max(axes.get_xlim())
            assert min(axes.get_ylim()) <= y <= max(axes.get_ylim())


def test_schedules_of_several_runs_follow_their_names():
    frame = exponents_frame(LETTERS, SPREAD)
    chart = exponents_chart({"zeta": frame, "alpha": frame}, {"zeta": False, "alpha": False})
    assert [title for title in panels(chart) if title] == ["alpha", "zeta"]


@pytest.mark.parametrize(
    ("draw", "error", "named"),
    [
        (lambda: likelihood_chart(likelihood().clear()), ValueError, "no rows"),
        (lambda: training_chart({}, {}), ValueError, "no training curves"),
        (lambda: training_chart({"a": curve([])}, UNITS), ValueError, "'a' has no rows"),
        (lambda: samplers_chart(samplers_table({})), ValueError, "no rows"),
        (lambda: exponents_chart({}, {}), ValueError, "no exponents to draw"),
        (lambda: schedule([], []), ValueError, "run 'run' has no exponents"),
        (
            lambda: exponents_chart({"a": pl.DataFrame({"token": [1]})}, {"a": False}),
            MetricsError,
            "exponents of run 'a' have the columns",
        ),
        (
            lambda: exponents_chart({"a": exponents_frame(["1"], [1.0]).cast({"symbol": pl.Int64})}, {"a": False}),
            MetricsError,
            "symbol",
        ),
    ],
)
def test_nothing_to_draw_and_columns_of_other_types_are_errors(draw, error, named):
    with pytest.raises(error, match=named):
        draw()
