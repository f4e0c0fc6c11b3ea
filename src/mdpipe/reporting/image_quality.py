"""The table of image quality: samples of runs against real images, and what real images and noise have instead."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from mdpipe.reporting.tables import Record, Schema, check_record

ESTIMATES = (*("fid", "precision", "recall", "inception_score", "class_accuracy", "nearer_features", "nearer_pixels"),)
MEASURES: Schema = {f"{name}{suffix}": pl.Float64 for name in ESTIMATES for suffix in ("", "_stderr")}
SETS: Schema = {"images": pl.String, "num_images": pl.Int64, "reference": pl.String, "num_reference": pl.Int64}
"""A set of images and the real images that it is compared with: samples, those of a further sampler by its name,
training, held_out or noise."""
OF_SAMPLER: Schema = {"sampler": pl.String, "nfe": pl.Int64}
"""What the rows of further samplers have themselves."""
DESCRIPTION: Schema = {
    **dict.fromkeys(("run", "dataset", "split", "features", "feature_network", "feature_network_sha256"), pl.String),
    **dict.fromkeys(("sampler", "class_cond"), pl.String),
    **dict.fromkeys(("k", "nfe", "seed"), pl.Int64),
}
"""`split` is the held-out split. Only rows with equal `feature_network_sha256` and numbers of images compare."""
OF_RUN = ("run", "sampler", "class_cond", "nfe", "seed")
"""What is null in the rows of real images and noise, which no run made."""
IMAGE_QUALITY: Schema = {
    **{name: DESCRIPTION[name] for name in ("run", "dataset")},
    **SETS,
    **MEASURES,
    **{name: dtype for name, dtype in DESCRIPTION.items() if name not in ("run", "dataset")},
}
NOT_OF_A_RUN = {"training", "held_out", "noise"}


def image_quality_table(records: Iterable[Record]) -> pl.DataFrame:
    """Return the rows of the records of stage measure_images, columns `IMAGE_QUALITY`.

    The rows of real images and noise have no run, and one that several runs share is there once.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        where = f"records/image_quality of run {record.get('run')!r}"
        described = {name: value for name, value in record.items() if name != "rows"}
        checked = check_record(described, DESCRIPTION, where, optional={"class_cond"})
        for measured in record.get("rows", []):
            row = check_record(measured, {**SETS, **MEASURES, **OF_SAMPLER}, where, optional={*MEASURES, *OF_SAMPLER})
            rows.append(_of_set(checked, is_of_run=row["images"] not in NOT_OF_A_RUN) | row)
    table = pl.DataFrame(rows, schema=IMAGE_QUALITY)
    return table.unique(maintain_order=True).sort("dataset", "run", "images", "reference", nulls_last=True)


def _of_set(described: Mapping[str, Any], *, is_of_run: bool) -> dict[str, Any]:
    return {name: value if is_of_run or name not in OF_RUN else None for name, value in described.items()}
