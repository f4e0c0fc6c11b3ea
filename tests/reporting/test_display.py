import polars as pl
import polars.testing
import pytest

from mdpipe.reporting.schemas import FILE, to_display, to_markdown, write_table
from mdpipe.reporting.tables import likelihood_table, samplers_table
from tests.reporting.records import IMAGE_RATES, difference, encoding, evaluation, scored, scored_frame


@pytest.fixture
def likelihood() -> pl.DataFrame:
    return likelihood_table([evaluation("small", "digits")], [encoding("digits", IMAGE_RATES)])


def test_equal_tables_give_equal_bytes(tmp_path, likelihood):
    for name in ("one", "other"):
        write_table(likelihood.clone(), tmp_path / name)
    for ending in ("csv", "md"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"other.{ending}").read_bytes()


def test_the_csv_holds_every_digit_and_every_column(tmp_path, likelihood):
    write_table(likelihood, tmp_path / "likelihood")
    pl.testing.assert_frame_equal(pl.read_csv(tmp_path / "likelihood.csv", schema=likelihood.schema), likelihood)
    assert (tmp_path / "likelihood.csv").read_text().splitlines()[2].startswith(",digits,test,,image,bits/dim,4.12,,")


def test_the_markdown_reads_well(likelihood):
    assert to_markdown(likelihood) == (
        "| run   | estimator | dataset | split | unit     |       value | examples | MC samples | parameters |\n"
        "| ----- | --------- | ------- | ----- | -------- | ----------: | -------: | ---------: | ---------: |\n"
        "| small | md4 bound | digits  | test  | bits/dim | 2.21 ± 0.02 |      180 |         16 |    905,000 |\n"
        "|       | png       | digits  | test  | bits/dim |       4.120 |          |            |            |\n"
        "|       | unigram   | digits  | test  | bits/dim | 3.30 ± 0.02 |          |            |            |\n"
        "|       | webp      | digits  | test  | bits/dim |       3.700 |          |            |            |\n"
    )


def test_the_page_shows_values_first_unlike_the_csv(tmp_path, likelihood):
    assert to_display(likelihood, complete=True).headings[:5] == ["run", "value", "unit", "estimator", "dataset"]
    write_table(likelihood, tmp_path / "likelihood")
    assert (tmp_path / "likelihood.csv").read_text().splitlines()[0].split(",") == likelihood.columns


def test_the_file_of_a_row_is_no_column_to_read(likelihood):
    with_file = likelihood.with_columns(pl.lit("metrics/a.json").alias(FILE))
    assert to_markdown(with_file) == to_markdown(likelihood)
    assert to_display(with_file, complete=True).headings == to_display(likelihood, complete=True).headings
    assert to_display(with_file).files == ["metrics/a.json"] * 4


def test_rows_of_references_are_marked(likelihood):
    assert to_display(likelihood).is_reference == [False, True, True, True]


def test_held_out_data_among_samplers_are_a_reference():
    rows = [scored("a", "ancestral", 8), scored("a", "data", None)]
    table = to_display(samplers_table({"a": scored_frame(rows)}))
    assert table.is_reference == [True, False]
    assert [row[0] for row in table.rows] == ["a", "a"]


def test_a_difference_is_one_column_after_the_other_runs_name():
    evaluations = [evaluation("small", "digits"), evaluation("big", "digits")]
    table = to_display(likelihood_table(evaluations, [], [difference("small", "big")]))
    assert table.headings[5:9] == ["value", "baseline", "difference", "trainings"]
    assert [row[6:9] for row in table.rows] == [["", "", ""], ["big", "-0.012", "one training each"]]
    of_seeds = difference("small", "big", difference_stderr=0.0053, trainings="3 trainings each")
    table = to_display(likelihood_table(evaluations, [], [of_seeds]))
    assert table.rows[1][6:9] == ["big", "-0.012 ± 0.005", "3 trainings each"]


def test_a_number_and_its_standard_error_share_a_column():
    rows = [scored("a", "ancestral", 8, entropy=4.123, entropy_stderr=0.021)]
    table = to_display(samplers_table({"a": scored_frame(rows)}))
    assert "entropy stderr" not in table.headings
    assert table.rows[0][table.headings.index("entropy")] == "4.12 ± 0.02"


def test_a_cell_cannot_break_the_markdown():
    lines = to_markdown(pl.DataFrame({"run": ["a|b\nc\\"], "dataset": ["x"]})).splitlines()
    assert lines[2] == "| a\\|b c\\\\ | x       |"
    assert len(lines) == 3
