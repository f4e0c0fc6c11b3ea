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
from mdpipe.reporting.schemas import numbers, texts

NOT_A_BOUND = "not a bound"

COMPARED = {
    **texts("run", "dataset", "split", "unit"),
    **numbers("measured", "measured_stderr"),
    **texts("method", "size", "relation"),
    **numbers("published"),
    **texts("source", "comparable"),
}
"""Columns of a row per published number on the data of a run. `comparable` is `yes` or the reason why it is not."""


MEASURED = {
    **texts("run", "dataset", "split", "class_cond", "unit", "tokenizer", "protocol"),
    **numbers("value", "stderr", "perplexity", "perplexity_stderr"),
}
"""A measured bound in the terms of the published table."""


def compare_with_published(
    likelihood: pl.DataFrame, zero_shot: pl.DataFrame, published: pl.DataFrame, params: Params
) -> pl.DataFrame:
    """Return each measured bound on a data set of the catalog next to the published numbers on it.

    Args:
        likelihood: The table of held-out likelihoods.
        zero_shot: The table of likelihoods of other text.
        published: The rows of results/published.csv.
        params: The sources and datasets that the tables name.

    Returns:
        The columns `COMPARED`, for each run and data set by value.
    """
    rows = [*_held_out_rows(likelihood, params), *_other_text_rows(zero_shot, params)]
    measured = pl.DataFrame(rows, schema=MEASURED)
    perplexities = measured.drop_nulls("perplexity").with_columns(
        unit=pl.lit("perplexity"), value="perplexity", stderr="perplexity_stderr"
    )
    pairs = pl.concat([measured, perplexities]).join(
        published, on=["dataset", "unit"], suffix="_published", maintain_order="left_right"
    )
    own, other = (
        {name: pl.col(f"{name}{suffix}").fill_null("None") for name in ("split", "tokenizer", "protocol")}
        for suffix in ("", "_published")
    )
    another_split = pl.format("another split: the published one is {}, by the catalog", other["split"])
    # The first difference that keeps a measured and a published number from being compared.
    differences = [
        pl.when(relation=NOT_A_BOUND).then("note"),
        pl.when(own["split"] != other["split"]).then(another_split),
        *(
            pl.when(own[name] != other[name]).then(
                pl.format(f"{name} {{}}, published with {{}}", own[name], other[name])
            )
            for name in ("tokenizer", "protocol")
        ),
        pl.when(pl.col("class_cond").is_not_null()).then(pl.lit("class-conditional")),
    ]
    return pairs.select(
        *("run", "dataset", "split", "unit"),
        *(pl.col("value").alias("measured"), pl.col("stderr").alias("measured_stderr")),
        *("method", "size", "relation", pl.col("value_published").alias("published"), "source"),
        comparable=pl.coalesce(*differences, pl.lit("yes")),
    ).sort("run", "dataset", "published")


def _held_out_rows(likelihood: pl.DataFrame, params: Params) -> Iterator[dict[str, Any]]:
    """Yield the likelihoods of splits of catalog data sets, in the terms of the published table."""
    for row in likelihood.drop_nulls("run").iter_rows(named=True):
        dataset = params.datasets[row["dataset"]]
        if not isinstance(source := params.sources[dataset.source], CatalogSource):
            continue
        spec = dataset.splits.model_dump()[row["split"]]
        suggested = find_entry(source.name).dataset or {}
        protocol = "images"
        if isinstance(dataset, TextDataset):
            protocol = next((name for name, packing in PACKINGS.items() if packing == dataset.packing), "its own")
        is_published_split = spec == suggested.get("splits", {}).get(row["split"])
        yield {
            **row,
            "protocol": protocol,
            "dataset": source.name,
            "tokenizer": dataset.tokenizer.kind,
            # A split of the source's own may have another name here.
            "split": (spec if isinstance(spec, str) else row["split"]) if is_published_split else None,
        }


def _other_text_rows(zero_shot: pl.DataFrame, params: Params) -> Iterator[dict[str, Any]]:
    for row in zero_shot.drop_nulls("run").iter_rows(named=True):
        if isinstance(source := params.sources[row["source"]], CatalogSource):
            split = source.name.rpartition("_")[2]
            yield row | {"dataset": source.name, "split": split if split in ("train", "validation") else "test"}
