"""The table of image quality, and the sheet of samples and their neighbors."""

from typing import Any

import numpy as np
import pytest

from mdpipe.data.artifacts.files import MetricsError
from mdpipe.reporting.images import GAP, Neighbors, neighbor_sheet
from mdpipe.reporting.schemas import IMAGE_MEASURES, IMAGE_RUN, to_markdown
from mdpipe.reporting.tables import image_quality_table


def record(run: str, fid: float, **changes: Any) -> dict[str, Any]:
    """A record of stage measure_images with the rows of its samples and of noise."""
    described: dict[str, Any] = {name: 3 if name in ("k", "nfe", "seed") else name for name in IMAGE_RUN}
    measures = dict.fromkeys(IMAGE_MEASURES) | {"fid": fid, "fid_stderr": 0.25}
    sets = {"num_images": 9, "reference": "held_out", "num_reference": 8}
    rows = [{"images": "samples", **sets, **measures}, {"images": "noise", **sets, **measures, "fid": 70.5}]
    return {**described, "run": run, "dataset": "digits", "class_cond": None, "rows": rows, **changes}


def test_noise_and_real_images_are_there_once_below_the_runs():
    table = image_quality_table([record("digits_b", 2.5, seed=4), record("digits_a", 1.5)])
    assert table.select("run", "images", "fid").rows() == [
        ("digits_a", "samples", 1.5),
        ("digits_b", "samples", 2.5),
        (None, "noise", 70.5),
    ]
    assert table["nfe"].to_list() == [3, 3, None]
    assert table["seed"].to_list() == [3, 4, None]
    shown = to_markdown(table)
    assert "1.5 ± 0.2" in shown or "1.50 ± 0.25" in shown
    assert "class accuracy" not in shown  # no run has classes


def test_a_record_with_a_wrong_field_is_refused_by_name():
    with pytest.raises(MetricsError, match="run 'a' has unknown best; its fields are"):
        image_quality_table([record("a", 1.0, best=2.0)])
    broken = record("a", 1.0)
    broken["rows"][0]["fid"] = "low"
    with pytest.raises(MetricsError, match="run 'a': fid has a wrong type"):
        image_quality_table([broken])


def test_a_sheet_has_a_row_per_sample_and_a_column_per_neighbor():
    red, green = np.array([200, 0, 0], np.uint8), np.array([0, 200, 0], np.uint8)
    samples, near = np.tile(red, (2, 4, 4, 1)), np.tile(green, (2, 3, 4, 4, 1))
    sheet = np.asarray(neighbor_sheet(samples, [Neighbors("by pixels", near, [[0.5] * 3] * 2)]))
    is_red, is_green = ((sheet == color).all(2) for color in (red, green))
    assert (is_red.sum(), is_green.sum()) == (2 * 64 * 64, 2 * 3 * 64 * 64)
    assert np.flatnonzero(is_red.any(0)).max() < np.flatnonzero(is_green.any(0)).min()
    assert (is_red.any(1) == is_green.any(1)).all()  # neighbors are in the row of their sample
    assert sheet[is_green.any(1)][:, -GAP:].min() == 255  # a margin at the right
