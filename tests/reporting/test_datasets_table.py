"""The table of datasets has a row a split, from the manifests."""

import pytest

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.datasets_table import datasets_table
from tests.reporting import records


def test_every_split_is_a_row_and_what_does_not_apply_is_empty():
    text = records.encoding("docs", []) | {
        "splits": {"train": {"documents": 9, "tokens": 90, "content": "aa"}, "test": {"documents": 1, "leaked": 0.25}}
    }
    table = datasets_table([text, records.encoding("digits", [])])
    assert table.select("dataset", "split").rows() == [("digits", "test"), ("docs", "test"), ("docs", "train")]
    assert table["leaked"].to_list() == [None, 0.25, None]
    assert table["images"].to_list() == [180, None, None]


@pytest.mark.parametrize("missing", ["source", "vocabulary", "splits"])
def test_a_record_without_what_a_manifest_says_is_named(missing):
    record = records.encoding("docs", [])
    del record[missing]
    with pytest.raises(MetricsError, match=rf"metrics/encode of dataset 'docs' has no {missing}; `dvc repro`"):
        datasets_table([record])
