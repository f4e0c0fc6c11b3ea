import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.artifacts.files import RESULTS, MetricsError, atomic_write, read_record, write_record

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@given(metrics=st.dictionaries(st.text(), VALUES, max_size=5))
def test_bytes_do_not_depend_on_the_order_of_keys(folder, metrics):
    write_record(metrics, folder / "one.json")
    write_record(dict(reversed(metrics.items())), folder / "other.json")
    assert (folder / "one.json").read_bytes() == (folder / "other.json").read_bytes()


@given(metrics=st.dictionaries(st.text(), VALUES, max_size=5))
def test_writing_what_was_read_gives_the_same_bytes(folder, metrics):
    """Rounding twice is rounding once, so metrics can be read, passed on and written."""
    write_record(metrics, folder / "one.json")
    write_record(read_record(folder / "one.json"), folder / "other.json")
    assert (folder / "one.json").read_bytes() == (folder / "other.json").read_bytes()


@given(value=NUMBERS.filter(lambda value: abs(value) > 1e-300))
def test_floats_are_right_to_six_significant_digits(folder, value):
    write_record({"value": value}, folder / "one.json")
    assert math.isclose(read_record(folder / "one.json")["value"], value, rel_tol=5.0000001e-6)


def test_the_file_is_sorted_json_with_a_newline_at_its_end(tmp_path):
    write_record({"b": 1 / 3, "a": [-0.0, 12], "ä": {"d": None, "c": "x"}}, tmp_path / "stage" / "run.json")
    text = (tmp_path / "stage" / "run.json").read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["a", "b", "ä"]
    assert '"b": 0.333333,' in text
    assert "-0" not in text
    assert "ä" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [math.inf, math.nan, object(), {1, 2}])
def test_an_invalid_value_is_named_and_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "run.json"
    write_record({"old": 1}, path)
    with pytest.raises(MetricsError, match=r"run\.json: parts\.prior\[1\]"):
        write_record({"parts": {"prior": [0.0, value]}}, path)
    assert read_record(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, "{", "[1]", "\xff"])
def test_an_unreadable_file_is_named_with_a_hint(tmp_path, content):
    path = tmp_path / "evaluate" / "letters.json"
    if content is not None:
        path.parent.mkdir()
        path.write_text(content, encoding="latin-1")
    with pytest.raises(MetricsError, match=r"letters\.json .*dvc repro.*'evaluate'"):
        read_record(path)


RESULT = st.sampled_from(RESULTS)
FIELDS = st.dictionaries(st.text().filter(lambda name: name not in RESULTS), VALUES, max_size=3)


@given(results=st.dictionaries(RESULT, st.integers() | NUMBERS), described=FIELDS)
def test_metrics_hold_the_results_and_the_record_the_rest(folder, results, described):
    write_record(results | described, folder / "record.json", folder / "metrics.json")
    assert json.loads((folder / "metrics.json").read_bytes()).keys() == results.keys()
    assert json.loads((folder / "record.json").read_bytes()).keys() == described.keys()
    write_record(results | described, folder / "whole.json")
    whole = read_record(folder / "record.json", folder / "metrics.json")
    assert whole == read_record(folder / "whole.json")


@pytest.mark.parametrize("value", [None, "2.5", [1.0]])
def test_a_result_that_is_not_a_number_is_refused(tmp_path, value):
    with pytest.raises(MetricsError, match=r"metrics\.json: value is .*; a result is a number"):
        write_record({"run": "a", "value": value}, tmp_path / "record.json", tmp_path / "metrics.json")
    assert not list(tmp_path.iterdir())


def test_a_field_in_both_files_is_refused(tmp_path):
    write_record({"value": 1.0}, tmp_path / "record.json")
    write_record({"value": 2.0}, tmp_path / "metrics.json")
    with pytest.raises(MetricsError, match=r"both have value; `dvc repro`"):
        read_record(tmp_path / "record.json", tmp_path / "metrics.json")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
