"""Published results next to measured ones, and whether the two are comparable.

results/published.csv has one row per published number of MD4's paper (Tables 1 to 3 and 5 to 7, Figure 5) and of the
papers that it is compared with. `dataset` is a name of the catalog, and `protocol` the packing of text. `relation` says
how the number relates to the likelihood: exact (`=`), an upper bound (`<=`), or not a bound, for the reason in `note`.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from mdpipe.params import Params
from mdpipe.params.catalog import find_entry
from mdpipe.params.data import PACKINGS, TextDataset
from mdpipe.params.sources import CatalogSource
from mdpipe.pipeline import paths
from mdpipe.reporting.schemas import Record, numbers, texts

NOT_A_BOUND = "not a bound"

COMPARED = {
    **texts("run", "dataset", "split", "unit"),
    **numbers("measured", "measured_stderr"),
    **texts("method", "size", "relation"),
    **numbers("published"),
    **texts("source", "comparable"),
}
"""One row per published number on the data of a run. `comparable` is `yes` or the reason why the numbers are not."""


def read_published() -> pl.DataFrame:
    """Return results/published.csv."""
    return pl.read_csv(paths.PUBLISHED, infer_schema_length=None)


def compare_with_published(
    likelihood: pl.DataFrame, zero_shot: pl.DataFrame, published: pl.DataFrame, params: Params
) -> pl.DataFrame:
    """Return each measured bound on a data set of the catalog next to the published numbers on it.

    Args:
        likelihood: the table of held-out likelihoods.
        zero_shot: the table of likelihoods of other text.
        published: the rows of results/published.csv.
        params: the sources and datasets that the tables name.

    Returns:
        The columns `COMPARED`, for each run and data set by value.
    """
    rows = [
        {
            **{name: measured[name] for name in ("run", "dataset", "split", "unit")},
            "measured": measured["value"],
            "measured_stderr": measured["stderr"],
            **{name: number[name] for name in ("method", "size", "relation", "source")},
            "published": number["value"],
            "comparable": _why_not_comparable(measured, number) or "yes",
        }
        for measured in (*_held_out(likelihood, params), *_other_text(zero_shot, params))
        for number in published.filter(dataset=measured["dataset"], unit=measured["unit"]).iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=COMPARED).sort("run", "dataset", "published")


def _held_out(likelihood: pl.DataFrame, params: Params) -> Iterator[dict[str, Any]]:
    """Yield what was measured on splits of catalog data sets, in the terms of the published table."""
    for row in likelihood.drop_nulls("run").iter_rows(named=True):
        dataset = params.datasets[row["dataset"]]
        if not isinstance(source := params.sources[dataset.source], CatalogSource):
            continue
        spec = dataset.splits.model_dump()[row["split"]]
        suggested = find_entry(source.name).dataset or {}
        is_published_split = spec == suggested.get("splits", {}).get(row["split"])
        text = {"protocol": _packing_name(dataset)} if isinstance(dataset, TextDataset) else {"protocol": "images"}
        yield from _in_published_units(
            row
            | text
            | {
                "dataset": source.name,
                "tokenizer": dataset.tokenizer.kind,
                # A split of the source's own may have another name here.
                "split": (spec if isinstance(spec, str) else row["split"]) if is_published_split else None,
            }
        )


def _other_text(zero_shot: pl.DataFrame, params: Params) -> Iterator[dict[str, Any]]:
    for row in zero_shot.drop_nulls("run").iter_rows(named=True):
        if isinstance(source := params.sources[row["source"]], CatalogSource):
            split = source.name.rpartition("_")[2]
            yield from _in_published_units(
                row | {"dataset": source.name, "split": split if split in ("train", "validation") else "test"}
            )


def _in_published_units(row: Record) -> Iterator[dict[str, Any]]:
    """Yield the row in its own unit, and the perplexity of one that has it."""
    yield dict(row)
    if row.get("perplexity") is not None:
        yield {**row, "unit": "perplexity", "value": row["perplexity"], "stderr": row["perplexity_stderr"]}


def _packing_name(dataset: TextDataset) -> str:
    return next((name for name, packing in PACKINGS.items() if packing == dataset.packing), "its own")


def _why_not_comparable(measured: Record, number: Record) -> str | None:
    """Return the first difference that keeps a measured and a published number from being compared."""
    if number["relation"] == NOT_A_BOUND:
        return str(number["note"])
    if measured["split"] != number["split"]:
        return f"another split: the published one is {number['split']}, by the catalog"
    for name in ("tokenizer", "protocol"):
        if measured[name] != number[name]:
            return f"{name} {measured[name]}, published with {number[name]}"
    if measured["class_cond"] is not None:
        return "class-conditional"
    return None
