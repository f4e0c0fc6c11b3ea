from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.reporting import svg
from mdpipe.reporting.curves_figure import training_curves_figure
from mdpipe.reporting.likelihood_figure import likelihood_figure
from mdpipe.reporting.tables import likelihood_table
from tests.reporting.records import IMAGE_RATES, TEXT_RATES, encoding, evaluation

UNITS = {"a": "bits/dim", "b": "bits/char", "c": "bits/token"}
SVG = "{http://www.w3.org/2000/svg}"


def likelihood() -> pl.DataFrame:
    evaluations = [evaluation("small", "digits"), evaluation("pieces", "docs", "text")]
    return likelihood_table(evaluations, [encoding("digits", IMAGE_RATES), encoding("docs", TEXT_RATES)])


def texts(figure: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure).iter(f"{SVG}text")]


def widths(figure: str, kind: str) -> list[float]:
    bars = ElementTree.fromstring(figure).iter(f"{SVG}rect")
    return [float(bar.attrib["width"]) for bar in bars if bar.attrib["class"] == kind]


def test_bars_are_as_long_as_their_bits_are_many():
    (model,) = widths(likelihood_figure(likelihood().filter(dataset="digits")), "model")
    unigram, webp, png = widths(likelihood_figure(likelihood().filter(dataset="digits")), "reference")
    assert [unigram / model, webp / model, png / model] == pytest.approx(
        [3.3 / 2.2134, 3.7 / 2.2134, 4.12 / 2.2134], rel=0.01
    )


def test_the_names_of_several_runs_of_a_dataset_have_room_beside_their_bars():
    runs = ["letters", "letters_genmd4", "letters_autoregressive", "letters_any_order", "letters_score_entropy"]
    evaluations = [evaluation(run, "docs", "text", bits_per_byte=3 - at / 100) for at, run in enumerate(runs)]
    root = ElementTree.fromstring(likelihood_figure(likelihood_table(evaluations, [encoding("docs", TEXT_RATES)])))
    ends = {element.text: float(element.attrib["x"]) for element in root.iter(f"{SVG}text")}
    assert all(ends[run] >= 7 * len(run) for run in runs)
    assert len(widths(ElementTree.tostring(root, encoding="unicode"), "model")) == len(runs)
    bars = [float(bar.attrib["x"]) for bar in root.iter(f"{SVG}rect")]
    assert min(bars) > max(ends[run] for run in runs)


def test_numbers_are_those_of_the_table_rounded_by_their_errors():
    shown = texts(likelihood_figure(likelihood()))
    for expected in ("2.21 ± 0.02", "4.120", "bits/dim, test", "bits/byte, test", "2.118 ± 0.012", "2.900 ± 0.004"):
        assert expected in shown
    assert "8.200 ± 0.011" not in shown, "text is compared in bits/byte"


@pytest.mark.parametrize(
    "draw", [lambda: likelihood_figure(likelihood()), lambda: training_curves_figure(curves(), UNITS)]
)
def test_figures_are_the_same_each_time_and_follow_the_readers_colours(draw):
    assert draw() == draw()
    assert "prefers-color-scheme: dark" in draw()
    ElementTree.fromstring(draw())


def test_a_bar_says_that_its_bound_was_given_the_class_label():
    evaluations = [evaluation("plain", "digits"), evaluation("told", "digits", condition="class label")]
    shown = texts(likelihood_figure(likelihood_table(evaluations, [])))
    assert {"plain", "told, class label"} < set(shown)


def test_names_are_escaped():
    name = "<b>&\"'"
    ElementTree.fromstring(likelihood_figure(likelihood().with_columns(dataset=pl.lit(name))))
    assert name in texts(training_curves_figure({name: curve([3.0, 2.0])}, {name: "bits/dim"}))


def curve(losses: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"step": [7 * (at + 1) for at in range(len(losses))], "loss": losses})


def curves() -> dict[str, pl.DataFrame]:
    return {"b": curve([4.0, 3.0, 2.5, 2.4]), "a": curve([8.0]), "c": curve([1.0] * 30)}


@given(losses=st.lists(st.floats(0.001, 30), min_size=1, max_size=60))
def test_curves_stay_inside_the_figure_however_they_run(losses):
    root = ElementTree.fromstring(training_curves_figure({"run": curve(losses)}, {"run": "bits/dim"}))
    height = float(root.attrib["viewBox"].split()[3])
    for line in root.iter(f"{SVG}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= svg.WIDTH
            assert 0 <= y <= height


def test_every_curve_has_the_unit_of_its_run():
    shown = texts(training_curves_figure(curves(), UNITS))
    assert [text for text in shown if text in UNITS.values()] == ["bits/dim", "bits/char", "bits/token"]


def test_runs_are_drawn_in_the_order_of_their_names():
    assert [text for text in texts(training_curves_figure(curves(), UNITS)) if text in "abc"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("draw", "named"),
    [
        (lambda: likelihood_figure(likelihood().clear()), "no rows"),
        (lambda: training_curves_figure({}, {}), "no training curves"),
        (lambda: training_curves_figure({"a": curve([])}, UNITS), "'a' has no rows"),
    ],
)
def test_nothing_to_draw_is_an_error(draw, named):
    with pytest.raises(ValueError, match=named):
        draw()
