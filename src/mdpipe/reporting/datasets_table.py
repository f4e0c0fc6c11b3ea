"""The table of datasets: where each came from and what is in its splits, from the manifests."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.columns import Columns

OF_DATASET: Columns = {
    "dataset": pl.String,
    "modality": pl.String,
    "source": pl.String,
    "origin": pl.String,
    "revision": pl.String,
    "licence": pl.String,
    "tokenizer": pl.String,
    "vocabulary": pl.Int64,
    "length": pl.Int64,
}
"""`length` is the number of tokens per example."""

OF_SPLIT: Columns = {
    "split": pl.String,
    "documents": pl.Int64,
    "images": pl.Int64,
    "classes": pl.Int64,
    "examples": pl.Int64,
    "tokens": pl.Int64,
    "bytes": pl.Int64,
    "characters": pl.Int64,
    "unknown": pl.Int64,
    "longest": pl.Int64,
    "duplicates": pl.Int64,
    "duplicates_of_training": pl.Int64,
    "contamination_windows": pl.Int64,
    "leaked": pl.Float64,
    "content": pl.String,
}
"""`classes` counts those that have pictures in the split. `examples` are what evaluation reads: images, or windows of
`length` tokens one after another. `leaked` is the share of the split's `contamination_windows`, of 50 characters each,
that also occur in the training text."""


def datasets_table(encodings: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """One row a dataset and split: the records of metrics/encode. What does not apply is null.

    Raises:
        MetricsError: a record says nothing of its source or its splits.
    """
    rows = []
    for record in encodings:
        where = f"metrics/encode of dataset {record.get('dataset')!r}"
        splits = record.get("splits")
        missing = [name for name in OF_DATASET if name not in record]
        if missing or not isinstance(splits, Mapping):
            raise MetricsError(f"{where} has no {missing[0] if missing else 'splits'}; `dvc repro` makes it again")
        told = {name: record[name] for name in OF_DATASET}
        for split, counts in splits.items():
            rows.append({**told, "split": split, **{name: counts.get(name) for name in OF_SPLIT if name != "split"}})
    return pl.DataFrame(rows, schema=OF_DATASET | OF_SPLIT).sort("dataset", "split")
