import random
from io import BytesIO

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdpipe.data.artifacts.files import MetricsError
from mdpipe.reporting.schemas import (
    COMPARISON,
    LIKELIHOOD,
    NGRAM_STATISTICS,
    SAMPLERS,
    SAMPLES,
    SPEEDS,
    TRAINING,
    ZERO_SHOT,
)
from mdpipe.reporting.tables import datasets_table, likelihood_table, samplers_table, table_of_runs, zero_shot_table
from tests.reporting.records import (
    IMAGE_RATES,
    TEXT_RATES,
    difference,
    encoding,
    evaluation,
    rate,
    sample,
    scored,
    scored_frame,
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


def test_models_are_sorted_with_their_references_below_them():
    table = likelihood_table(EVALUATIONS, ENCODINGS)
    assert table.columns == [*LIKELIHOOD, *COMPARISON]
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


def test_a_model_row_has_every_field_of_its_record():
    record = evaluation("pieces", "docs", "text")
    (row,) = likelihood_table([record], []).rows(named=True)
    assert row == record | dict.fromkeys(COMPARISON)


def test_a_difference_is_only_in_the_row_of_its_run():
    table = likelihood_table(EVALUATIONS, ENCODINGS, [difference("small", "big")])
    compared = table.drop_nulls("difference")
    assert rows(compared, "run", "baseline", "difference", "difference_stderr") == [("small", "big", -0.0123, None)]
    uncompared = likelihood_table(EVALUATIONS, ENCODINGS)
    assert_frame_equal(table.drop(*COMPARISON), uncompared.drop(*COMPARISON))
    assert uncompared.select(*COMPARISON).null_count().row(0) == (uncompared.height,) * len(COMPARISON)


def test_a_difference_says_what_either_run_was_given():
    evaluations = [evaluation("conditional", "digits", class_cond="class label"), evaluation("plain", "digits")]
    columns = ("run", "class_cond", "baseline", "baseline_class_cond")
    for run, baseline in (("conditional", "plain"), ("plain", "conditional")):
        table = likelihood_table(evaluations, [], [difference(run, baseline)])
        given = {"conditional": "class label", "plain": None}
        assert rows(table.filter(run=run), *columns) == [(run, given[run], baseline, given[baseline])]


def test_a_bound_that_does_not_say_its_conditioning_is_refused():
    record = evaluation("old", "digits")
    del record["class_cond"]
    with pytest.raises(MetricsError, match="of run 'old' lacks class_cond"):
        likelihood_table([record], [])


def test_a_run_has_one_difference():
    evaluations = [evaluation(run, "digits") for run in "abc"]
    with pytest.raises(MetricsError, match="run 'a' has two comparisons"):
        likelihood_table(evaluations, [], [difference("a", "b"), difference("a", "c")])


def test_a_reference_has_its_models_unit_bits_per_byte_and_word():
    table = likelihood_table(EVALUATIONS, ENCODINGS).filter(pl.col("run").is_null(), dataset="docs")
    columns = (
        "estimator",
        "unit",
        "value",
        "stderr",
        "bits_per_byte",
        "bits_per_byte_stderr",
        "bits_per_word",
        "bits_per_word_stderr",
        "num_parameters",
        "seed",
    )
    assert rows(table, *columns) == [
        ("unigram", "bits/token", 8.2, 0.011, 2.9, 0.004, None, None, None, None),
        ("xz", "bits/byte", 2.31, None, 2.31, None, 14.2, None, None, None),
    ]


def test_references_of_splits_without_models_are_left_out():
    rates = [rate("png", "bits/dim", 4.0, split="validation"), rate("png", "bits/dim", 4.1, split="test")]
    table = likelihood_table([evaluation("small", "digits")], [encoding("digits", rates)])
    assert rows(table.filter(pl.col("run").is_null()), "split", "value") == [("test", 4.1)]


def test_zero_shot_references_occur_once_per_dataset():
    records = [zero_shot(run, source) for source in ("scipy", "numpy") for run in ("two", "one")]
    table = zero_shot_table(records)
    assert table.columns == list(ZERO_SHOT)
    expected = [(run, "all", estimator) for run, estimator in zip(["one", "two"], ["md4 bound"] * 2, strict=True)]
    expected += [(None, "all", "unigram"), (None, "all", "xz")]
    for source in ("numpy", "scipy"):
        assert rows(table.filter(source=source), "run", "split", "estimator") == expected
    assert table["source"].is_sorted()


def test_a_sampler_without_a_grid_has_no_steps():
    records = [sample("a", steps=None, time_grid=None), sample("c")]
    assert rows(table_of_runs(records, SAMPLES, "sample"), "steps", "time_grid") == [(None, None), (64, "cosine")]


def test_tables_of_nothing_have_their_columns():
    assert likelihood_table([], []).columns == [*LIKELIHOOD, *COMPARISON]
    assert zero_shot_table([]).columns == list(ZERO_SHOT)
    assert table_of_runs([], TRAINING, "train").columns == list(TRAINING)


def without(record, *names):
    return {name: value for name, value in record.items() if name not in names}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: likelihood_table([without(evaluation("a", "x"), "stderr", "seed")], []), "'a' lacks seed, stderr;"),
        (lambda: likelihood_table([without(evaluation("a", "x", "text"), "perplexity")], []), "lacks perplexity;"),
        (lambda: likelihood_table([evaluation("a", "x", color=1)], []), "'a' has unknown color;"),
        (
            lambda: likelihood_table([evaluation("a", "x", num_mc_samples=2.5)], []),
            "num_mc_samples has a wrong type: .*Int64",
        ),
        (lambda: likelihood_table([evaluation("a", "x", split=None)], []), "has no value of split;"),
        (
            lambda: likelihood_table([evaluation("a", "x", value="2")], []),
            "value has a wrong type: .*Float64; found .*String",
        ),
        (lambda: likelihood_table([], [without(encoding("x", []), "references")]), "'x': references should be a list"),
        (
            lambda: likelihood_table([], [encoding("x", [without(IMAGE_RATES[0], "unit")])]),
            "reference 'png' lacks unit",
        ),
        (lambda: zero_shot_table([without(zero_shot("a", "s"), "source")]), "lacks source;"),
        (lambda: table_of_runs([without(sample("a"), "nfe")], SAMPLES, "sample"), "'a' lacks nfe;"),
        (lambda: table_of_runs([sample("a", best=1.0)], SAMPLES, "sample"), "'a' has unknown best;"),
    ],
)
def test_a_wrong_field_of_a_record_is_named(make, named):
    with pytest.raises(MetricsError, match=named):
        make()


def test_every_split_is_a_row_and_other_fields_are_null():
    text = encoding("docs", []) | {
        "splits": {
            "train": {"documents": 9, "tokens": 90, "content_hash": "aa"},
            "test": {"documents": 1, "ngram_overlap": 0.25},
        }
    }
    table = datasets_table([text, encoding("digits", [])])
    assert table.select("dataset", "split").rows() == [("digits", "test"), ("docs", "test"), ("docs", "train")]
    assert table["ngram_overlap"].to_list() == [None, 0.25, None]
    assert table["images"].to_list() == [180, None, None]


@pytest.mark.parametrize("missing", ["source", "vocab_size", "splits"])
def test_a_missing_field_of_a_dataset_is_named(missing):
    record = encoding("docs", [])
    del record[missing]
    with pytest.raises(MetricsError, match=rf"records/encode of dataset 'docs' has no {missing}; `dvc repro`"):
        datasets_table([record])


LETTERS = [
    scored("letters", "first_hitting", None),
    scored("letters", "ancestral", 16),
    scored("letters", "ancestral", 8),
    scored("letters", "zigzag", 8),
    scored("letters", "data", None),
]
BYTES = [scored("bytes", "data", None), scored("bytes", "ancestral", 8, num_parameters=5)]
FRAMES = {"letters": scored_frame(LETTERS), "bytes": scored_frame(BYTES)}


def speed(run, sampler, steps, num_parameters, tokens_per_second):
    return dict(zip(SPEEDS, (run, sampler, steps, num_parameters, tokens_per_second), strict=True))


def test_the_data_come_before_the_samplers_of_their_run():
    table = samplers_table(FRAMES)
    assert table.select("run", "sampler", "steps").rows() == [
        ("bytes", "data", None),
        ("bytes", "ancestral", 8),
        ("letters", "data", None),
        ("letters", "ancestral", 8),
        ("letters", "ancestral", 16),
        ("letters", "first_hitting", None),
        ("letters", "zigzag", 8),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_sampler_rows_and_columns_does_not_matter(seed):
    shuffled = random.Random(seed)
    names = shuffled.sample(list(SAMPLERS), len(SAMPLERS))
    frames = {"letters": scored_frame(shuffled.sample(LETTERS, len(LETTERS))), "bytes": scored_frame(BYTES)}
    turned = {run: frames[run].select(names) for run in shuffled.sample(list(frames), 2)}
    assert_frame_equal(samplers_table(turned), samplers_table(FRAMES))


def test_a_table_read_from_its_file_is_the_same():
    """A column without any number, or with whole numbers only, has another type when it comes from CSV."""
    rows = [scored("a", "data", None), scored("a", "first_hitting", None, bits=3)]
    read = pl.read_csv(BytesIO(scored_frame(rows).write_csv().encode()))
    assert_frame_equal(samplers_table({"a": read}), samplers_table({"a": scored_frame(rows)}))


def test_a_speed_belongs_to_a_sampler_its_steps_and_network():
    speeds = pl.DataFrame(
        [
            speed("letters", "ancestral", 8, 809856, 800.5),
            speed("letters", "ancestral", 32, 809856, 1.0),
            speed("letters", "zigzag", 8, 1, 2.0),
            speed("letters", "first_hitting", None, 809856, 64.0),
            speed("bytes", "ancestral", None, 5, 3.0),
        ],
        schema=SPEEDS,
    )
    table = samplers_table(FRAMES, speeds)
    assert table.drop_nulls("tokens_per_second").select("run", "sampler", "steps", "tokens_per_second").rows() == [
        ("letters", "ancestral", 8, 800.5),
        ("letters", "first_hitting", None, 64.0),
    ]
    assert_frame_equal(table.drop("tokens_per_second"), samplers_table(FRAMES).drop("tokens_per_second"))


def test_temperatures_of_a_sampler_are_rows_with_one_speed():
    rows = [scored("a", "euler", 8, temperature=t) for t in (1.0, 0.5)]
    speeds = pl.DataFrame([speed("a", "euler", 8, 809856, 7.5)], schema=SPEEDS)
    table = samplers_table({"a": scored_frame(rows)}, speeds)
    assert table.select("temperature", "tokens_per_second").rows() == [(0.5, 7.5), (1.0, 7.5)]


def test_images_have_no_ngrams():
    row = scored("a", "euler", 8) | dict.fromkeys(NGRAM_STATISTICS)
    assert samplers_table({"a": scored_frame([row])})["distinct_4"].to_list() == [None]


def test_a_comparison_of_nothing_has_its_columns():
    assert samplers_table({}).columns == [*SAMPLERS, "tokens_per_second"]


def of_a(*rows):
    return lambda: samplers_table({"a": scored_frame(rows)})


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: samplers_table({"letters": FRAMES["letters"].drop("bits")}), r"letters\.csv lacks bits; its fields"),
        (lambda: samplers_table({}, pl.DataFrame({"run": ["a"]})), "measured speeds lacks num_parameters, sampler"),
        (
            lambda: samplers_table({"letters": FRAMES["letters"].with_columns(bits=pl.lit("x"))}),
            r"letters\.csv: bits has a wrong type: .*Float64",
        ),
        (of_a(scored("a", "euler", 8, entropy=None)), "has no value of entropy;"),
        (of_a(scored("a", "euler", 8, samples=None)), "has no value of samples;"),
    ],
)
def test_a_wrong_field_of_a_samplers_file_is_named(make, named):
    with pytest.raises(MetricsError, match=named):
        make()
