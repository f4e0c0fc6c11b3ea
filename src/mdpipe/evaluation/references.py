"""Reference rates for comparison with a model: general-purpose compressors, and the unigram entropy of a split.

xz and bzip2 read the split's text as one file, with a NUL for each separator between documents, since the model encodes
separators too; the separator of `text8` is a space of its text and remains one. PNG and WebP read the images as one
large sheet, to spare each image a file header. A compressor's size is exact for the split and has no standard error.

Shapes: N images of H x W pixels and C channels.
"""

import bz2
import io
import lzma
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import ConcatArray
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.tokenize.token_stream import decode_between
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.evaluation.estimate import Estimate, ratio_estimate, unigram_nll

Scalar = TypeVar("Scalar", bound=np.generic)

SHEET_EDGE = 4096
"""Largest edge of a sheet of images in pixels; WebP has a limit of 16,383. More images make more sheets."""

NUL = "\0"
"""Replaces a separator that is not text: a byte that hardly any text contains."""

DECODE_BATCH = 2**20
"""Tokens that are decoded together."""

Rows = NDArray[Scalar] | ConcatArray[Scalar]

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode by number of channels, for those that both PNG and WebP support."""


class Rate(TypedDict):
    """A reference row, ready for a metrics file."""

    reference: str
    split: str
    unit: str
    value: float
    stderr: float | None


def reference_rates(dataset: EncodedDataset) -> list[Rate]:
    """Compute all references that apply to a split of a data set with a training split: compressors and unigram.

    The units are bits/byte, bits/char, bits/token and, if there are words, bits/word for text, and bits/dim for images.

    Raises:
        ValueError: The split has a single example, or a file of the data set is missing or broken.
    """
    tokens = dataset.counts["tokens"]
    bits = unigram_entropy(dataset).scale(tokens / math.log(2))
    return [*compressor_rates(dataset), *_rates(dataset, "unigram", bits.value, bits.stderr)]


def compressor_rates(dataset: EncodedDataset) -> list[Rate]:
    """Compute the references that need no training split: xz and bzip2 of text, PNG and WebP of images.

    Raises:
        ValueError: A file of the data set is missing or broken.
    """
    image = dataset.modality == "image"
    sizes = image_sizes(dataset.tokens, dataset.shape) if image else text_sizes(_texts(dataset))
    return [rate for name, size in sizes.items() for rate in _rates(dataset, name, 8 * size, None)]


def text_sizes(texts: Iterable[str]) -> dict[str, int]:
    """Return the bytes of a text, given in parts, compressed by xz and bzip2 at their strongest settings."""
    compressors: dict[str, Any] = {
        "xz": lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME),
        "bzip2": bz2.BZ2Compressor(9),
    }
    sizes = dict.fromkeys(compressors, 0)
    for text in texts:
        for name, compressor in compressors.items():
            sizes[name] += len(compressor.compress(text.encode()))
    return {name: size + len(compressors[name].flush()) for name, size in sizes.items()}


def image_sizes(tokens: Rows[np.uint8], shape: tuple[int, ...]) -> dict[str, int]:
    """Return the bytes of images (N, H W C) on sheets in PNG and lossless WebP; empty unless C is 1 or 3."""
    from PIL import Image  # Imported here because a machine that only evaluates models may not have it.

    if shape[2] not in MODES:
        return {}
    settings: dict[str, dict[str, Any]] = {
        "png": {"format": "PNG", "optimize": True},
        "webp": {"format": "WebP", "lossless": True, "quality": 100, "method": 6},
    }
    sizes = dict.fromkeys(settings, 0)
    for sheet in sheets(tokens, shape):
        image = Image.fromarray(sheet.squeeze(axis=2) if sheet.shape[2] == 1 else sheet)
        for name, options in settings.items():
            file = io.BytesIO()
            image.save(file, **options)
            sizes[name] += file.tell()
    return sizes


def sheets(tokens: Rows[np.uint8], shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """Yield images (N, H W C) side by side on approximately square sheets (h, w, C), padded with zeros."""
    height, width, channels = shape
    max_rows, max_columns = max(1, SHEET_EDGE // height), max(1, SHEET_EDGE // width)
    capacity = max_rows * max_columns
    for first in range(0, len(tokens), capacity):
        batch = tokens[first : first + capacity].reshape(-1, *shape)
        square = math.ceil(math.sqrt(len(batch) * height / width))
        columns = max(min(max_columns, square), math.ceil(len(batch) / max_rows))
        rows = math.ceil(len(batch) / columns)
        sheet = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
        sheet[: len(batch)] = batch
        grid = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
        yield grid.reshape(rows * height, columns * width, channels)


def _texts(dataset: EncodedDataset) -> Iterator[str]:
    """Yield the text of a split with its separators, in parts that end with a document where possible."""
    tokenizer = load_tokenizer(dataset.directory)
    start = 0
    while start < len(dataset.tokens):
        tokens = dataset.tokens[start : start + DECODE_BATCH]
        ends = np.flatnonzero(tokens == tokenizer.eos_id)
        if len(ends) and start + len(tokens) < len(dataset.tokens):
            tokens = tokens[: ends[-1] + 1]
        if tokenizer.eos_separates_words:
            yield tokenizer.decode(tokens)
        else:
            bounds = [(end + 1, stop) for end, stop in pairwise([-1, *ends.tolist(), len(tokens)])]
            texts = [tokenizer.decode(tokens[first:stop]) for first, stop in bounds]
            if tokenizer.is_lossless:
                for number in (0, -1):  # These may start or end within a character.
                    first, stop = bounds[number]
                    texts[number] = decode_between(tokenizer, dataset.tokens, start + first, start + stop)
            yield NUL.join(texts)
        start += len(tokens)


def unigram_entropy(dataset: EncodedDataset) -> Estimate:
    """Estimate the cross entropy in nats per token under the training split's token counts plus one."""
    nats = unigram_nll(dataset.unigram())
    totals, sizes = np.zeros(dataset.examples), np.zeros(dataset.examples, dtype=np.int64)
    for batch, tokens in dataset.evaluation_batches(batch_size=1024):
        totals[batch] = nats[tokens].sum(axis=1)
        sizes[batch] = tokens.shape[1]
    return ratio_estimate(totals, sizes, dataset.clusters[1])


def _rates(dataset: EncodedDataset, reference: str, bits: float, stderr: float | None) -> list[Rate]:
    """Return the rates of a reference that needs `bits` for the whole split, in each unit that the split has."""
    names = {"bits/dim": "tokens"}
    if dataset.modality == "text":
        names = {"bits/byte": "bytes", "bits/char": "characters", "bits/token": "tokens", "bits/word": "words"}
    units = {unit: dataset.counts[name] for unit, name in names.items() if dataset.counts[name]}
    return [
        {
            "reference": reference,
            "split": dataset.split,
            "unit": unit,
            "value": bits / size,
            "stderr": None if stderr is None else stderr / size,
        }
        for unit, size in units.items()
    ]
