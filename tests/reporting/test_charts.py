"""Charts show the data of the tables, with units, errors and distinct names."""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import vl_convert

from mdpipe.reporting.charts import (
    COLORS,
    DIGIT_WIDTH,
    EXTREMES,
    MAX_SYMBOLS,
    VALUE_GAP,
    Chart,
    curves_table,
    exponents_chart,
    likelihood_chart,
    training_charts,
)
from mdpipe.reporting.evaluation_charts import profile_chart, samplers_chart
from mdpipe.reporting.schemas import BOUND_LOSS
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

STEPS = (8, 16, 32, 64, 128)
LETTERS = list(" abcdefghijklmnopqrstuvwxyz")
SPREAD = [0.5 + (7 * at % 27) / 27 for at in range(27)]
"""27 exponents in no order."""
EVIL = "<b>&amp;\"'"


def likelihood(run: str = "small") -> pl.DataFrame:
    evaluations = [evaluation(run, "digits"), evaluation("pieces", "docs", "text")]
    return likelihood_table(evaluations, [encoding("digits", IMAGE_RATES), encoding("docs", TEXT_RATES)])


def curve(losses: list[float], **others: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"step": [7 * (at + 1) for at in range(len(losses))], "train/loss": losses, **others})


def curves(**by_run: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {run: frame.with_columns(run=pl.lit(run)) for run, frame in by_run.items()}


def trained(loss: str = BOUND_LOSS, **datasets: str) -> pl.DataFrame:
    return pl.DataFrame({"run": list(datasets), "dataset": list(datasets.values())}).with_columns(
        unit=pl.lit("bits/dim"), training_loss=pl.lit(loss)
    )


def compared(*rows: dict[str, Any]) -> pl.DataFrame:
    runs = sorted({row["run"] for row in rows})
    return samplers_table({run: scored_frame([row for row in rows if row["run"] == run]) for run in runs})


def schedule(symbols: list[str | None], exponents: list[float], ordered: bool = False) -> Chart:
    frame = exponents_frame(symbols, exponents).with_columns(run=pl.lit("run"))
    return exponents_chart({"run": frame}, {"run": ordered})


def rows(spec: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    """Return the data of the layer with a mark."""
    layer = next(layer for layer in spec["layer"] if layer["mark"]["type"] == mark)
    found: list[dict[str, Any]] = spec["datasets"][(layer.get("data") or spec["data"])["name"]]
    return found


def scene_marks(item: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the marks of one kind, also those in groups."""
    if item.get("marktype") == kind:
        yield item
    for part in item.get("items", []):
        yield from scene_marks(part, kind)


def encodings(spec: dict[str, Any], channel: str) -> list[dict[str, Any]]:
    return [layer["encoding"][channel] for layer in spec["layer"] if channel in layer["encoding"]]


def column(data: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in data]


CHARTS = {
    "likelihood": lambda: likelihood_chart(likelihood()),
    "training": lambda: training_charts(curves(a=curve([3.0, 2.0])), trained(a="digits"))["digits"],
    "samplers": lambda: samplers_chart(compared(*[scored("a", name, 8) for name in ("euler", "data")])),
    "frontier": lambda: samplers_chart(compared(*[scored("a", "euler", 8, temperature=t) for t in (0.5, 1.0)])),
    "exponents": lambda: schedule(LETTERS, SPREAD),
    "exponents of levels": lambda: schedule([str(level) for level in range(256)], [*np.linspace(1, 2, 256)], True),
}


@pytest.mark.parametrize("name", CHARTS)
def test_equal_charts_give_equal_bytes(name):
    assert CHARTS[name]().to_svg() == CHARTS[name]().to_svg()
    assert CHARTS[name]().to_specs() == CHARTS[name]().to_specs()


@pytest.mark.parametrize("name", CHARTS)
def test_every_panel_has_axis_titles_and_follows_its_column(name):
    chart = CHARTS[name]()
    assert chart.alt.endswith(".")
    for spec in chart.to_specs():
        assert spec["width"] == "container"
        for channel in ("x", "y"):
            assert any(one.get("title") or one.get("field") == "name" for one in encodings(spec, channel))


@pytest.mark.parametrize("name", CHARTS)
def test_every_color_has_a_light_and_a_dark_value(name):
    svg = CHARTS[name]().to_svg()
    used = {part.split(")")[0] for part in svg.split("var(--")[1:]}
    assert used
    assert used <= set(COLORS)
    assert all(svg.count(f"--{color}: ") == 2 for color in used)


def test_names_in_a_figure_are_text():
    table = compared(scored("a", EVIL, 8))
    texts = [node.text for node in ElementTree.fromstring(samplers_chart(table).to_svg()).iter() if node.text]
    assert any(EVIL in text for text in texts)


def test_bars_are_the_bits_of_the_table_the_fewest_on_top():
    digits, _ = likelihood_chart(likelihood()).to_specs()
    bars = rows(digits, "bar")
    assert column(bars, "name") == ["small", "unigram, reference", "webp, reference", "png, reference"]
    assert column(bars, "value") == [2.2134, 3.3, 3.7, 4.12]
    assert column(bars, "bits") == ["2.21 ± 0.02", "3.30 ± 0.02", "3.700", "4.120"]
    assert len(set(column(bars, "color"))) == 2
    assert {one["sort"] for one in encodings(digits, "y") if "sort" in one} == {None}


def test_error_bars_of_the_likelihood_are_one_standard_error():
    digits, _ = likelihood_chart(likelihood()).to_specs()
    ends = [(row["low"], row["high"]) for row in rows(digits, "rule")]
    assert ends[0] == pytest.approx((2.2134 - 0.021, 2.2134 + 0.021))
    assert ends[1] == pytest.approx((3.28, 3.32))
    assert ends[3] == (4.12, 4.12)


@pytest.mark.parametrize("width", [150, 330, 500])
def test_the_longest_bar_leaves_room_for_its_value_only(width):
    (digits, _) = likelihood_chart(likelihood()).to_specs()
    scene = vl_convert.vegalite_to_scenegraph(digits | {"width": width, "autosize": "none"})["scenegraph"]
    longest = max(item["width"] for mark in scene_marks(scene, "rect") for item in mark["items"])
    room = DIGIT_WIDTH * len("2.21 ± 0.02") + VALUE_GAP
    assert longest == pytest.approx(max(width - room, width / 2))


def test_text_is_in_bits_per_byte_and_images_in_their_own_unit():
    digits, docs = likelihood_chart(likelihood()).to_specs()
    assert [encodings(spec, "x")[0]["title"] for spec in (digits, docs)] == ["bits/dim", "bits/byte"]
    assert column(rows(docs, "bar"), "value") == [2.1181, 2.31, 2.9]
    assert [spec["title"]["text"] for spec in (digits, docs)] == ["digits", "docs"]


def test_a_bar_says_that_its_bound_was_given_the_class_label():
    evaluations = [evaluation("plain", "digits"), evaluation("conditional", "digits", class_cond="class label")]
    (spec,) = likelihood_chart(likelihood_table(evaluations, [])).to_specs()
    assert column(rows(spec, "bar"), "name") == ["conditional, class label", "plain"]


def test_runs_on_one_dataset_share_a_figure_of_every_column():
    others = {"train/lr": [0.1, 0.2], "train/grad_norm": [1.0, 2.0]}
    of_runs = {"a": curve([8.0, 7.0], **others), "b": curve([4.0, 3.0], **others), "c": curve([2.0, 1.0])}
    charts = training_charts(curves(**of_runs), trained(a="digits", b="digits", c="photos"))
    assert list(charts) == ["digits", "photos"]
    loss, rate, norm = charts["digits"].to_specs()
    titles = [encodings(spec, "y")[1]["title"] for spec in (loss, rate, norm)]
    assert titles == ["training loss (bits/dim)", "learning rate", "gradient norm"]
    assert {(row["run"], row["step"], row["value"]) for row in rows(loss, "line")} == {
        ("a", 7, 8.0),
        ("a", 14, 7.0),
        ("b", 7, 4.0),
        ("b", 14, 3.0),
    }
    assert len(charts["photos"].panels) == 1


def test_a_column_of_only_some_runs_and_steps_gets_its_panel():
    of_runs = {"a": curve([3.0, 2.0], **{"val/bits": [None, 2.5]}), "b": curve([3.0, 2.0])}
    _, validation = training_charts(curves(**of_runs), trained(a="digits", b="digits"))["digits"].to_specs()
    assert [(row["run"], row["step"], row["value"]) for row in rows(validation, "line")] == [("a", 14, 2.5)]


def test_a_loss_with_another_weight_has_a_panel_without_a_unit():
    of_runs = pl.concat([trained(a="digits"), trained("flat weight", b="digits")])
    found = curves(a=curve([3.0, 2.0]), b=curve([2.0, 1.0]))
    bound, flat = training_charts(found, of_runs)["digits"].to_specs()
    assert [encodings(spec, "y")[1]["title"] for spec in (bound, flat)] == [
        "training loss (bits/dim)",
        "training loss, flat weight",
    ]
    assert [set(column(rows(spec, "line"), "run")) for spec in (bound, flat)] == [{"a"}, {"b"}]
    assert [encodings(spec, "color")[0]["legend"]["values"] for spec in (bound, flat)] == [["a"], ["b"]]
    panels = curves_table(found, of_runs)["panel"].unique(maintain_order=True).to_list()
    assert panels == ["digits, training loss (bits/dim)", "digits, training loss, flat weight"]


def test_validations_have_error_bars_next_to_the_loss():
    validations = {"validation/loss": [None, 2.5], "validation/stderr": [None, 0.5], "train/lr": [0.1, 0.1]}
    charts = training_charts(curves(a=curve([3.0, 2.0], **validations)), trained("flat weight", a="digits"))
    _, validation, _ = charts["digits"].to_specs()
    assert encodings(validation, "y")[0]["title"] == "validation bound (bits/dim)"
    assert [(row["step"], row["low"], row["high"]) for row in rows(validation, "rule")] == [(14, 2.0, 3.0)]
    assert charts["digits"].alt.endswith("error bars of validations are one standard error.")


def test_the_bold_line_is_the_mean_of_nine_records_around_each():
    losses = [float(value) for value in np.random.default_rng(0).uniform(1, 5, 30)]
    (spec,) = training_charts(curves(a=curve(losses)), trained(a="digits"))["digits"].to_specs()
    means = [np.mean(losses[max(0, at - 4) : at + 5]) for at in range(30)]
    assert column(rows(spec, "line"), "mean") == pytest.approx(means)


def test_samplers_show_bits_by_nfe_with_their_errors():
    measured = [scored("a", "euler", 8, bits=4.0, bits_stderr=0.5), scored("a", "euler", 64, bits=3.0, bits_stderr=0.1)]
    (spec,) = samplers_chart(compared(*measured, scored("a", "data", None, bits=2.0))).to_specs()
    points = rows(spec, "point")
    assert [(row["nfe"], row["bits"]) for row in points] == [(8, 4.0), (64, 3.0)]
    assert [(row["low"], row["high"]) for row in points] == [(3.5, 4.5), pytest.approx((2.9, 3.1))]
    assert column(rows(spec, "rule"), "bits") == [2.0]


def test_doubling_the_nfe_is_always_the_same_distance():
    (spec,) = samplers_chart(compared(*[scored("a", "euler", steps) for steps in STEPS])).to_specs()
    (x, *_) = encodings(spec, "x")
    assert x["scale"] == {"type": "log", "base": 2}
    assert x["axis"]["values"] == list(STEPS)


def test_every_panel_names_its_run_reference_model_and_unit():
    measured = [scored("b", "euler", 8, reference_model="critic_b", unit="bits/token"), scored("a", "euler", 8)]
    specs = samplers_chart(compared(*measured)).to_specs()
    labels = {spec["title"]: next(one["title"] for one in encodings(spec, "y") if "title" in one) for spec in specs}
    assert labels == {"a": "bits/char under critic", "b": "bits/token under critic_b"}


def test_the_caption_names_temperatures_only_of_a_frontier():
    assert "temperatures" not in CHARTS["samplers"]().alt
    assert "entropy over temperatures" in CHARTS["frontier"]().alt


@pytest.mark.parametrize("runs", [2, 3])
def test_three_runs_have_no_bands_but_errors_in_tooltips(runs):
    mask_fractions = pl.DataFrame({"mask_fraction": [0.5, 1.0], "bits": [1.5, 4.0], "bits_stderr": [0.1, 0.2]})
    positions = mask_fractions.select("bits", "bits_stderr", first=pl.Series([1, 2]), last=pl.Series([1, 3]), tokens=9)
    names = pl.DataFrame({"run": list("abc"[:runs])})
    chart = profile_chart(names.join(mask_fractions, how="cross"), names.join(positions, how="cross"), "bits/char")
    for spec in chart.to_specs():
        assert any(layer["mark"]["type"] == "area" for layer in spec["layer"]) == (runs < 3)
        assert column(rows(spec, "line"), "shown") == ["1.50 ± 0.10", "4.0 ± 0.2"] * runs
    assert ("bands" in chart.alt) == (runs < 3)


def test_the_frontier_is_of_the_most_steps_over_temperatures():
    measured = [
        scored("a", "euler", 8, bits=5.0),
        *(scored("a", "euler", 64, temperature=t, bits=4 * t, entropy_per_sample=3 + t) for t in (0.5, 1.0)),
        scored("a", "first_hitting", None, temperature=1.0, bits=3.0, entropy_per_sample=4.5),
        scored("a", "data", None, bits=2.0, entropy_per_sample=3.5, entropy_per_sample_stderr=0.1),
    ]
    by_nfe, frontier = samplers_chart(compared(*measured)).to_specs()
    assert column(rows(by_nfe, "line"), "bits") == [5.0, 4.0, 3.0]
    (data,) = rows(frontier, "point")
    assert (data["entropy_per_sample"], data["bits"], data["entropy"]) == (3.5, 2.0, "3.50 ± 0.10")
    line = rows(frontier, "line")
    assert [(row["sampler"], row["temperature"], row["entropy_per_sample"], row["bits"]) for row in line] == [
        ("euler", 0.5, 3.5, 2.0),
        ("euler", 1.0, 4.0, 4.0),
        ("first_hitting", 1.0, 4.5, 3.0),
    ]
    assert (line[0]["left"], line[0]["right"]) == (3.0, 4.0)
    assert encodings(frontier, "order")[0]["field"] == "temperature"
    assert frontier["title"]["subtitle"] == "temperatures 0.5, 1; cross: held-out data"


@pytest.mark.parametrize("count", [1, 8, 40])
def test_samplers_look_different_and_the_same_in_every_panel(count):
    names = [f"sampler{at:02}" for at in range(count)]
    specs = samplers_chart(compared(*[scored(run, name, 8) for run in "ab" for name in names])).to_specs()
    looks = []
    for spec in specs:
        scales = [encodings(spec, channel)[-1]["scale"] for channel in ("color", "shape")]
        assert [scale["domain"] for scale in scales] == [names, names]
        looks.append(list(zip(*(scale["range"] for scale in scales), strict=True)))
    assert looks[0] == looks[1]
    assert len(set(looks[0])) == count


def mean_time_of_unmasking(exponent: float) -> float:
    """Integrate: a token is still masked at t with probability t^w, so it was unmasked above t with 1 - t^w."""
    times = np.linspace(0, 1, 100_001)
    return float(np.trapezoid(1 - times**exponent, times))


def test_tokens_unmasked_sooner_are_nearer_to_unmasked_early():
    """Sampling runs from time 1 to 0, so what is unmasked at a larger time is unmasked sooner."""
    exponents = [0.4, 1.9, 1.0, 0.7, 1.3]
    specs = schedule(list("abcde"), exponents).to_specs()
    shown = [row["name"] for spec in specs for row in rows(spec, "point")]
    by_time = sorted(zip(exponents, "abcde", strict=True), key=lambda pair: -mean_time_of_unmasking(pair[0]))
    assert shown == [symbol for _, symbol in by_time]
    (curve_spec,) = schedule(LETTERS * 2, SPREAD * 2, ordered=True).to_specs()
    for label in (encodings(specs[0], "x")[-1]["title"], encodings(curve_spec, "y")[-1]["title"]):
        assert label.index("late") < label.index("early")


def test_every_letter_has_its_exponent_on_equal_axes():
    specs = schedule(LETTERS, SPREAD).to_specs()
    shown = {row["name"]: row["exponent"] for spec in specs for row in rows(spec, "point")}
    assert shown == dict(zip(["␣", *LETTERS[1:]], SPREAD, strict=True))
    domains = [encodings(spec, "x")[-1]["scale"]["domain"] for spec in specs]
    assert domains == [[min(SPREAD), max(SPREAD)]] * 2


def test_of_many_pieces_the_two_ends_are_shown():
    count = MAX_SYMBOLS + 1
    specs = schedule([f"piece{at}" for at in range(count)], [1 + at / 100 for at in range(count)]).to_specs()
    ends = [*range(count - 1, count - 1 - EXTREMES, -1), *range(EXTREMES - 1, -1, -1)]
    assert [row["name"] for spec in specs for row in rows(spec, "point")] == [f"piece{at}" for at in ends]
    assert [spec["title"]["subtitle"] for spec in specs] == ["the 15 largest of 41", "the 15 smallest of 41"]


def test_tokens_that_look_the_same_have_a_row_each():
    (spec, _) = schedule(["a" * 20, "a" * 21, "b", "c"], [4.0, 3.0, 2.0, 1.0]).to_specs()
    cut = "a" * 12 + "…"
    assert column(rows(spec, "point"), "name") == [f"{cut} (0)", f"{cut} (1)"]


def test_many_ordered_levels_are_a_curve_along_them():
    exponents = [1.0 + level % 5 for level in range(256)]
    (spec,) = schedule([str(level) for level in range(256)], exponents, ordered=True).to_specs()
    assert column(rows(spec, "line"), "token") == list(range(256))
    assert column(rows(spec, "line"), "exponent") == exponents


def test_the_gray_line_is_the_mean_of_all_tokens():
    specs = schedule(["a", "b", "c", "d"], [1.0, 1.2, 1.4, 2.4]).to_specs()
    assert [column(rows(spec, "rule"), "mean") for spec in specs] == [[1.5], [1.5]]


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
def test_invisible_symbols_are_marked_and_long_ones_cut(symbol, shown):
    (spec,) = schedule([symbol], [1.0]).to_specs()
    assert column(rows(spec, "point"), "name") == [shown]
