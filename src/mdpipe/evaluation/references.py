"""Reference rates: what general-purpose compressors and a table of frequencies make of a split.

Rows to be shown beside a model's. xz and bzip2 read the split's text as one file; PNG and WebP read its pictures as one
sheet, so that no picture pays for a file header. A compressor's size is exact for the split and has no standard error.
"""

import bz2
import io
import lzma
import math
from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.encoded import EncodedDataset
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.evaluation.estimate import Estimate, ratio_estimate

SHEET_EDGE = 4096
"""Largest edge of a sheet of pictures in pixels; WebP has a limit of 16,383. More pictures make more sheets."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for pictures of so many channels, for those that PNG and WebP can both hold."""


class Rate(TypedDict):
    """One reference row, ready for a metrics file."""

    reference: str
    split: str
    unit: str
    value: float
    stderr: float | None


def reference_rates(dataset: EncodedDataset) -> list[Rate]:
    """All references that apply to a split.

    Text: xz, bzip2 and unigram in bits/byte, and unigram in bits/token. Pictures: PNG, WebP and unigram in bits/dim
    (the former two where pictures have one or three channels).

    Raises:
        ValueError: the split has a single example, or a file of the dataset is missing or broken.
    """
    unigram = unigram_entropy(dataset).scaled(1 / math.log(2))
    if dataset.modality == "image":
        sizes = picture_sizes(dataset.tokens.reshape(-1, *dataset.shape))
        rates = [_rate(name, dataset, "bits/dim", 8 * size / dataset.tokens.size) for name, size in sizes.items()]
        return [*rates, _rate("unigram", dataset, "bits/dim", unigram.value, unigram.stderr)]
    size_of_text = dataset.counts["bytes"]
    sizes = text_sizes(load_tokenizer(dataset.directory).decode(np.asarray(dataset.tokens)))
    per_byte = unigram.scaled(dataset.counts["tokens"] / size_of_text)
    return [
        *(_rate(name, dataset, "bits/byte", 8 * size / size_of_text) for name, size in sizes.items()),
        _rate("unigram", dataset, "bits/byte", per_byte.value, per_byte.stderr),
        _rate("unigram", dataset, "bits/token", unigram.value, unigram.stderr),
    ]


def text_sizes(text: str) -> dict[str, int]:
    """Bytes of a text as compressed by xz and bzip2, each at its strongest setting."""
    content = text.encode()
    return {
        "xz": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
        "bzip2": len(bz2.compress(content, 9)),
    }


def picture_sizes(images: NDArray[np.uint8]) -> dict[str, int]:
    """Bytes of pictures (N, H, W, C) as one sheet in PNG and in lossless WebP; empty for C other than 1 or 3."""
    from PIL import Image  # Here because a machine that only evaluates models may not have it.

    if images.shape[3] not in MODES:
        return {}
    settings: dict[str, dict[str, Any]] = {
        "png": {"format": "PNG", "optimize": True},
        "webp": {"format": "WebP", "lossless": True, "quality": 100, "method": 6},
    }
    sizes = dict.fromkeys(settings, 0)
    for sheet in sheets(images):
        picture = Image.fromarray(sheet.squeeze(axis=2) if sheet.shape[2] == 1 else sheet)
        for name, options in settings.items():
            file = io.BytesIO()
            picture.save(file, **options)
            sizes[name] += file.tell()
    return sizes


def sheets(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Pictures (N, H, W, C) side by side on sheets (h, w, C) about as high as wide; what is left over is zero."""
    _, height, width, channels = images.shape
    room = max(1, SHEET_EDGE // height) * max(1, SHEET_EDGE // width)
    for first in range(0, len(images), room):
        batch = images[first : first + room]
        columns = min(max(1, SHEET_EDGE // width), math.ceil(math.sqrt(len(batch) * height / width)))
        rows = math.ceil(len(batch) / columns)
        sheet = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
        sheet[: len(batch)] = batch
        grid = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
        yield grid.reshape(rows * height, columns * width, channels)


def unigram_entropy(dataset: EncodedDataset) -> Estimate:
    """Cross entropy in nats per token under the training split's token frequencies, with one added to each count."""
    counts = dataset.unigram() + 1
    cost = np.log(counts.sum()) - np.log(counts)
    costs, sizes = [], []
    for _, tokens in dataset.evaluation_batches(batch_size=1024):
        costs.append(cost[tokens].sum(axis=1))
        sizes.append(np.full(len(tokens), tokens.shape[1]))
    return ratio_estimate(np.concatenate(costs), np.concatenate(sizes))


def _rate(reference: str, dataset: EncodedDataset, unit: str, value: float, stderr: float | None = None) -> Rate:
    return {"reference": reference, "split": dataset.split, "unit": unit, "value": value, "stderr": stderr}
