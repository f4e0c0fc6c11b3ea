"""Tokenizers, splits and encoded folders in one call."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mdpipe.data import splits
from mdpipe.data.splits import SplitPlan
from mdpipe.data.tokenize import images, text
from mdpipe.data.tokenizers import build_tokenizer
from mdpipe.data.tokenizers.base import Tokenizer
from mdpipe.params.data import (
    PACKINGS,
    ImageDataset,
    LastCharacters,
    LastDocuments,
    Packing,
    PixelTokenizer,
    SentencePieceTokenizer,
    Splits,
    SplitSpec,
    TextDataset,
    TextTokenizer,
    Windows,
)


def make_tokenizer(kind: str, documents: Iterable[str] = (), **settings: Any) -> Tokenizer:
    """A tokenizer with these settings."""
    if kind == "sentencepiece":  # Without validation: a vocabulary may be smaller than params allow.
        return build_tokenizer(SentencePieceTokenizer().model_copy(update=settings), documents)
    config: TextTokenizer = TypeAdapter(TextTokenizer).validate_python({"kind": kind, **settings})
    return build_tokenizer(config, documents)


def document_ids(tokenizer: Tokenizer, text: str) -> NDArray[np.int64]:
    """The tokens of a document, which has no space at its ends where a space separates words."""
    ids = tokenizer.encode(text)
    return np.trim_zeros(ids) if tokenizer.eos_separates_words else ids


def last(count: int) -> LastDocuments:
    """The last documents or images."""
    return LastDocuments(last_documents=count)


def last_characters(count: int) -> LastCharacters:
    """The last characters."""
    return LastCharacters(last_characters=count)


def windows(fraction: float) -> Windows:
    """A fraction of the windows."""
    return Windows(windows=fraction)


def plan_splits(
    raw: Path, modality: Literal["text", "image"], seed: int, validation: SplitSpec | None, test: SplitSpec | None
) -> SplitPlan:
    """The plan of these splits."""
    return splits.plan_splits(raw, modality, seed, Splits(validation=validation, test=test))


def encode_text(
    raw: Path,
    tokenizer: Tokenizer,
    directory: Path,
    seq_len: int,
    seed: int,
    validation: SplitSpec,
    test: SplitSpec,
    packing: Packing = PACKINGS["stream"],
    work_dir: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Encode a source with these splits, by default without a work folder that would be kept."""
    specs = Splits(validation=validation, test=test)
    dataset = TextDataset.model_construct(seq_len=seq_len, splits=specs, packing=packing)
    with TemporaryDirectory() as temporary:
        text.encode_text(raw, tokenizer, dataset, seed, directory, work_dir or Path(temporary), provenance or {})


def encode_images(
    raw: Path,
    levels: int,
    size: int,
    stride: int,
    directory: Path,
    seed: int,
    validation: SplitSpec,
    test: SplitSpec,
    work_dir: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Quantize a source with these splits, by default without a work folder that would be kept."""
    specs, pixels = Splits(validation=validation, test=test), PixelTokenizer(levels=levels)
    dataset = ImageDataset.model_construct(tokenizer=pixels, image_size=size, stride=stride, splits=specs)
    with TemporaryDirectory() as temporary:
        images.encode_images(raw, dataset, seed, directory, work_dir or Path(temporary), provenance or {})
