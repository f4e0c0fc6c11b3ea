import random
from io import BytesIO

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.columns import SAMPLERS, SPEEDS
from mdpipe.reporting.samplers_table import samplers_comparison
from tests.reporting.records import judged, judged_frame

LETTERS = [
    judged("letters", "first_hitting", None),
    judged("letters", "ancestral", 16),
    judged("letters", "ancestral", 8),
    judged("letters", "zigzag", 8),
    judged("letters", "data", None),
]
BYTES = [judged("bytes", "data", None), judged("bytes", "ancestral", 8, parameters=5)]
FRAMES = {"letters": judged_frame(LETTERS), "bytes": judged_frame(BYTES)}


def speed(run, sampler, steps, parameters, tokens_per_second):
    return dict(zip(SPEEDS, (run, sampler, steps, parameters, tokens_per_second), strict=True))


def test_the_data_stand_above_the_samplers_of_their_run():
    table = samplers_comparison(FRAMES)
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
def test_the_order_of_files_rows_and_columns_does_not_matter(seed):
    shuffled = random.Random(seed)
    names = shuffled.sample(list(SAMPLERS), len(SAMPLERS))
    frames = {"letters": judged_frame(shuffled.sample(LETTERS, len(LETTERS))), "bytes": judged_frame(BYTES)}
    turned = {run: frames[run].select(names) for run in shuffled.sample(list(frames), 2)}
    assert_frame_equal(samplers_comparison(turned), samplers_comparison(FRAMES))


def test_a_table_read_from_its_file_is_the_same():
    """A column without any number, or with whole ones alone, has another type when it comes from CSV."""
    rows = [judged("a", "data", None), judged("a", "first_hitting", None, bits=3)]
    read = pl.read_csv(BytesIO(judged_frame(rows).write_csv().encode()))
    assert_frame_equal(samplers_comparison({"a": read}), samplers_comparison({"a": judged_frame(rows)}))


def test_a_speed_is_that_of_the_same_sampler_steps_and_network():
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
    table = samplers_comparison(FRAMES, speeds)
    assert table.drop_nulls("tokens_per_second").select("run", "sampler", "steps", "tokens_per_second").rows() == [
        ("letters", "ancestral", 8, 800.5),
        ("letters", "first_hitting", None, 64.0),
    ]
    assert_frame_equal(table.drop("tokens_per_second"), samplers_comparison(FRAMES).drop("tokens_per_second"))


def test_a_comparison_of_nothing_has_its_columns():
    assert samplers_comparison({}).columns == [*SAMPLERS, "tokens_per_second"]


def of_a(*rows):
    return lambda: samplers_comparison({"a": judged_frame(rows)})


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (
            lambda: samplers_comparison({"letters": FRAMES["letters"].drop("bits")}),
            r"letters\.csv has the columns run,",
        ),
        (lambda: samplers_comparison({"letters": FRAMES["letters"].drop("steps")}), "they should be run, dataset"),
        (lambda: samplers_comparison({"a": FRAMES["letters"]}), r"a\.csv: run should be 'a', not 'letters'"),
        (
            lambda: samplers_comparison({"letters": FRAMES["letters"].with_columns(bits=pl.lit("x"))}),
            r"letters\.csv: bits should be a number, not 'x'",
        ),
        (of_a(judged("a", "euler", 8, entropy=None)), "entropy should be a number, not None"),
        (of_a(judged("a", "euler", 8, samples=None)), "samples should be a whole number, not None"),
        (
            of_a(judged("a", "euler", 8, network_calls=None)),
            "network_calls of sampler 'euler' should be 1 at least, not N",
        ),
        (
            of_a(judged("a", "euler", 8, network_calls=0)),
            "network_calls of sampler 'euler' should be 1 at least, not 0",
        ),
        (of_a(*[judged("a", "euler", 8)] * 2), "two records of critic, euler, 8"),
        (of_a(*[judged("a", "data", None)] * 2), "two records of critic, data, None"),
        (
            lambda: samplers_comparison({}, pl.DataFrame([speed("a", "euler", 8, 1, 1.0)] * 2, schema=SPEEDS)),
            "measured speeds has two records of a, euler, 8, 1",
        ),
        (lambda: samplers_comparison({}, pl.DataFrame({"run": ["a"]})), "measured speeds has the columns run; they"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(make, named):
    with pytest.raises(MetricsError, match=named):
        make()
