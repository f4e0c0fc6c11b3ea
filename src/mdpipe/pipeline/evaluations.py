"""The evaluations of trainings, as the stages evaluate, zero_shot and measure_images write them."""

from collections.abc import Sequence

import numpy as np

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.artifacts.files import read_record
from mdpipe.pipeline import paths
from mdpipe.reporting.seeds import Array, Evaluation, Totals

COST_COLUMNS = 3
"""Number of columns before the estimates of further bounds: nats, tokens and cluster."""
FID_REFERENCE = "training"
"""The images that `read_fids` compares samples with."""


def read_evaluations(trainings: Sequence[str], source: str | None = None) -> Evaluation:
    """Return the nats of the evaluated split, or of a source that the runs were not trained on.

    Raises:
        ValueError: A file is missing or broken.
    """
    stacked = np.stack([_read_evaluation(run, source) for run in trainings])
    sizes, clusters = stacked[0, :, 1:COST_COLUMNS].T.astype(np.int64)
    bounds = stacked[..., COST_COLUMNS:].reshape(*stacked.shape[:2], -1, 2)
    return Evaluation(Totals(stacked[..., 0], sizes, clusters), bounds)


def _read_evaluation(run: str, source: str | None) -> Array:
    stage, path = f"evaluate@{run}", paths.evaluation(run)
    if source is not None:
        stage, path = f"zero_shot@{run}-{source}", paths.zero_shot_evaluation(run, source)
    hint = f"run `dvc repro {stage}` again"
    columns: Array = open_array(path, hint)
    if columns.ndim != 2 or columns.shape[1] < COST_COLUMNS:
        raise ValueError(f"{path} should have columns of nats, tokens and cluster, but it is {columns.shape}; {hint}")
    return columns


def read_fids(run: str) -> dict[str, float]:
    """Return the FID of each sampler of a training against the training images."""
    rows = read_record(paths.record("image_quality", run))["rows"]
    return {row["images"]: row["fid"] for row in rows if row["reference"] == FID_REFERENCE}
