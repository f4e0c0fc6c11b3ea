import random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.columns import COMPARED, LIKELIHOOD, ZERO_SHOT
from mdpipe.reporting.tables import likelihood_table, samples_table, training_table, zero_shot_table
from tests.reporting.records import (
    IMAGE_RATES,
    TEXT_RATES,
    difference,
    encoding,
    evaluation,
    rate,
    sample,
    training,
    zero_shot,
)

EVALUATIONS = [
    evaluation("small", "digits"),
    evaluation("big", "digits"),
    evaluation("pieces", "docs", "text"),
]
ENCODINGS = [encoding("docs", TEXT_RATES), encoding("digits", IMAGE_RATES), encoding("unused", IMAGE_RATES)]


def rows(frame, *columns):
    return frame.select(columns).rows()


def test_models_stand_sorted_with_their_references_below_them():
    table = likelihood_table(EVALUATIONS, ENCODINGS)
    assert table.columns == [*LIKELIHOOD, *COMPARED]
    assert rows(table, "dataset", "split", "run", "estimator") == [
        ("digits", "test", "big", "md4 bound"),
        ("digits", "test", "small", "md4 bound"),
        ("digits", "test", None, "png"),
        ("digits", "test", None, "unigram"),
        ("digits", "test", None, "webp"),
        ("docs", "test", "pieces", "md4 bound"),
        ("docs", "test", None, "unigram"),
        ("docs", "test", None, "xz"),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_files_does_not_matter(seed):
    shuffled = random.Random(seed)
    evaluations, encodings = shuffled.sample(EVALUATIONS, 3), shuffled.sample(ENCODINGS, 3)
    assert_frame_equal(likelihood_table(evaluations, encodings), likelihood_table(EVALUATIONS, ENCODINGS))


def test_a_model_row_holds_the_record_and_its_parts():
    record = evaluation("pieces", "docs", "text")
    (row,) = likelihood_table([record], []).rows(named=True)
    expected = {**{name: value for name, value in record.items() if name != "parts"}, **record["parts"]}
    assert row == expected | dict.fromkeys(COMPARED)


def test_a_difference_stands_in_the_row_of_its_run_alone():
    table = likelihood_table(EVALUATIONS, ENCODINGS, [difference("small", "big")])
    compared = table.drop_nulls("difference")
    assert rows(compared, "run", "against", "difference", "difference_stderr") == [("small", "big", -0.0123, 0.0031)]
    alone = likelihood_table(EVALUATIONS, ENCODINGS)
    assert_frame_equal(table.drop(*COMPARED), alone.drop(*COMPARED))
    assert alone.select(*COMPARED).null_count().row(0) == (alone.height,) * len(COMPARED)


def test_a_run_is_compared_on_every_dataset_and_split_that_it_was_evaluated_on():
    places = [("digits", "test"), ("digits", "train"), ("letters", "test")]
    evaluations = [evaluation(run, dataset, split=split) for run in ("a", "b") for dataset, split in places]
    differences = [
        difference("a", "b", dataset, split=split, value=value) for value, (dataset, split) in enumerate(places)
    ]
    table = likelihood_table(evaluations, [], differences)
    compared = [(*place, float(value)) for value, place in enumerate(places)]
    assert rows(table.filter(run="a"), "dataset", "split", "difference") == compared
    assert table.filter(run="b")["difference"].null_count() == len(places)


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (difference("small", "none"), "'small' and 'none' on digits, test, on which run 'none' was not evaluated"),
        (difference("none", "small"), "'none' and 'small' on digits, test, on which run 'none' was not evaluated"),
        (difference("small", "pieces"), "on which run 'pieces' was not evaluated"),
        (difference("small", "big", "docs"), "on docs, test, on which run 'small' was not evaluated"),
        (difference("small", "big", split="train"), "on digits, train, on which run 'small'"),
        (difference("small", "big", value=None), "'small' and 'big': value should be a number, not None"),
        (difference("small", "big", stderr="0"), "'small' and 'big': stderr should be a number, not '0'"),
        (difference("small", "big", unit="bits/dim"), "has unknown unit;"),
    ],
)
def test_a_difference_between_what_was_not_evaluated_alike_is_refused(record, named):
    with pytest.raises(MetricsError, match=named):
        likelihood_table(EVALUATIONS, ENCODINGS, [record])


def test_a_difference_says_what_either_run_was_given():
    evaluations = [evaluation("told", "digits", condition="class label"), evaluation("plain", "digits")]
    columns = ("run", "condition", "against", "against_condition")
    for run, against in (("told", "plain"), ("plain", "told")):
        table = likelihood_table(evaluations, [], [difference(run, against)])
        given = {"told": "class label", "plain": None}
        assert rows(table.filter(run=run), *columns) == [(run, given[run], against, given[against])]


def test_a_bound_without_a_word_on_its_condition_is_refused():
    record = evaluation("old", "digits")
    del record["condition"]
    with pytest.raises(MetricsError, match="of run 'old' lacks condition"):
        likelihood_table([record], [])


def test_a_reference_of_another_split_than_the_bound_is_refused():
    with pytest.raises(MetricsError, match="reference 'xz' is of split 'test', and the bound of 'all'"):
        zero_shot_table([zero_shot("one", "numpy", references=TEXT_RATES)])


def test_a_run_has_one_difference():
    evaluations = [evaluation(run, "digits") for run in "abc"]
    with pytest.raises(MetricsError, match="two records of a, digits, test"):
        likelihood_table(evaluations, [], [difference("a", "b"), difference("a", "c")])


def test_a_reference_takes_the_unit_of_its_models_and_tells_bits_per_byte_besides():
    table = likelihood_table(EVALUATIONS, ENCODINGS).filter(pl.col("run").is_null(), dataset="docs")
    columns = ("estimator", "unit", "value", "stderr", "bits_per_byte", "bits_per_byte_stderr", "parameters", "seed")
    assert rows(table, *columns) == [
        ("unigram", "bits/token", 8.2, 0.011, 2.9, 0.004, None, None),
        ("xz", "bits/byte", 2.31, None, 2.31, None, None, None),
    ]


def test_references_of_splits_that_nothing_was_measured_on_are_left_out():
    rates = [rate("png", "bits/dim", 4.0, split="validation"), rate("png", "bits/dim", 4.1, split="test")]
    table = likelihood_table([evaluation("small", "digits")], [encoding("digits", rates)])
    assert rows(table.filter(pl.col("run").is_null()), "split", "value") == [("test", 4.1)]


def test_zero_shot_references_stand_once_for_all_runs_of_a_dataset():
    records = [zero_shot(run, source) for source in ("scipy", "numpy") for run in ("two", "one")]
    table = zero_shot_table(records)
    assert table.columns == list(ZERO_SHOT)
    expected = [(run, "all", estimator) for run, estimator in zip(["one", "two"], ["md4 bound"] * 2, strict=True)]
    expected += [(None, "all", "unigram"), (None, "all", "xz")]
    for source in ("numpy", "scipy"):
        assert rows(table.filter(source=source), "run", "split", "estimator") == expected
    assert table["source"].is_sorted()


def test_samples_take_every_number_that_comes_along():
    table = samples_table([sample("b", words_known=0.4, words_known_stderr=0.02), sample("a", entropy=4)])
    assert rows(table, "run", "entropy", "words_known", "words_known_stderr") == [
        ("a", 4.0, None, None),
        ("b", None, 0.4, 0.02),
    ]
    assert table.columns[-3:] == ["entropy", "words_known", "words_known_stderr"]


def test_a_sampler_without_a_grid_has_no_steps():
    records = [sample("a", steps=None, grid=None), without(sample("b"), "steps", "grid"), sample("c")]
    assert rows(samples_table(records), "steps", "grid") == [(None, None), (None, None), (64, "cosine")]


def test_tables_of_nothing_have_their_columns():
    assert likelihood_table([], []).columns == [*LIKELIHOOD, *COMPARED]
    assert zero_shot_table([]).columns == list(ZERO_SHOT)
    assert samples_table([]).height == training_table([]).height == 0


def without(record, *names):
    return {name: value for name, value in record.items() if name not in names}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: likelihood_table([without(evaluation("a", "x"), "stderr", "seed")], []), "'a' lacks seed, stderr;"),
        (lambda: likelihood_table([without(evaluation("a", "x", "text"), "perplexity")], []), "lacks perplexity;"),
        (lambda: likelihood_table([evaluation("a", "x", colour=1)], []), "'a' has unknown colour;"),
        (lambda: likelihood_table([evaluation("a", "x", value="2")], []), "value should be a number, not '2'"),
        (lambda: likelihood_table([evaluation("a", "x", draws=2.5)], []), "draws should be a whole number, not 2.5"),
        (lambda: likelihood_table([evaluation("a", "x", split=None)], []), "split should be a text, not None"),
        (lambda: likelihood_table([evaluation("a", "x", value=True)], []), "value should be a number, not True"),
        (lambda: likelihood_table([evaluation("a", "x", parts=3)], []), "parts should be a mapping"),
        (lambda: likelihood_table([evaluation("a", "x")] * 2, []), "two records of a, x, test"),
        (lambda: likelihood_table([], [without(encoding("x", []), "references")]), "'x': references should be a list"),
        (
            lambda: likelihood_table([], [encoding("x", [without(IMAGE_RATES[0], "unit")])]),
            "reference 'png' lacks unit",
        ),
        (lambda: zero_shot_table([without(zero_shot("a", "s"), "source")]), "lacks source;"),
        (lambda: zero_shot_table([zero_shot("a", "s")] * 2), "two records of a, s"),
        (lambda: samples_table([without(sample("a"), "network_calls")]), "'a' lacks network_calls;"),
        (lambda: samples_table([sample("a", best="x")]), "best should be a number, not 'x'"),
        (lambda: training_table([training("a")] * 2), "two records of a;"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(make, named):
    with pytest.raises(MetricsError, match=named):
        make()
