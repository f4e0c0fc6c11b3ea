"""Files that `mdpipe generate` and `mdpipe infill` write: the name says what they hold, and is checked before sampling.

Texts   .txt             under numbered headings, as they are printed
        .jsonl           an object with the key `text` per line
Images  .png .jpg .webp  a sheet with all images, enlarged so that pixels are seen
        .npy             uint8 (N, H, W, C)
        .npz             the same under the key `images`
        a folder         a PNG per image at the image's size; replaces those of an earlier call
"""

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.data.pixels import dequantize
from mdpipe.data.tokenizers import Tokenizer
from mdpipe.stages.model_io import TrainedModel

COLUMNS = 8
"""Images per row of a sheet."""

SHOWN_EDGE = 64
"""Images of a sheet are enlarged to about this many pixels."""

TEXT_SUFFIXES = (".txt", ".jsonl")
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ARRAY_SUFFIXES = (".npy", ".npz")

DIGITS = 4
"""Minimum number of digits in the name of an image in a folder."""


def require_sample_path(out: str | None, modality: str) -> None:
    """Pass if samples of a modality can be written to `out`; None is the standard output.

    Raises:
        ValueError: its suffix or kind is not one of those for the modality, or no file can be made there.
    """
    if out is None:
        return
    suffix, folder = Path(out).suffix.lower(), _is_folder(out)
    if modality == "text" and (folder or suffix not in TEXT_SUFFIXES):
        raise ValueError(f"--out {out} does not say how to write texts; allowed: {', '.join(TEXT_SUFFIXES)}")
    if modality == "image" and not folder and suffix not in (*SHEET_SUFFIXES, *ARRAY_SUFFIXES):
        raise ValueError(
            f"--out {out} does not say how to write images; allowed: {', '.join(SHEET_SUFFIXES)} (a sheet of all),"
            f" {', '.join(ARRAY_SUFFIXES)} (an array), or a folder, with / at its end (a PNG each)"
        )
    path = Path(out).absolute() if folder else Path(out).absolute().parent
    while not path.exists():
        path = path.parent
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise ValueError(f"--out {out} cannot be written: {path} is not a folder in which files can be made")
    if Path(out).exists() and not os.access(out, os.W_OK):
        raise ValueError(f"--out {out} cannot be written: it is write-protected")


def write_texts(tokenizer: Tokenizer, tokens: Tensor, out: str | None) -> None:
    """Write texts (N, L) and print where they are; without `out`, print them under numbered headings."""
    texts = [tokenizer.decode(row) for row in tokens.numpy()]
    numbered = "".join(f"--- sample {number} ---\n{text}\n" for number, text in enumerate(texts, start=1))
    if out is None:
        sys.stdout.write(numbered)
        return
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    atomic_write(Path(out), (lines if Path(out).suffix.lower() == ".jsonl" else numbered).encode())
    sys.stdout.write(f"{out}\n")


def write_images(model: TrainedModel, tokens: Tensor, out: str, known: Tensor | None = None) -> None:
    """Write images (N, H W C) and print where they are.

    Args:
        model: the model, which knows their shape.
        tokens: the images.
        out: a file or a folder.
        known: (1, H W C) what they were filled into, which a sheet shows first.
    """
    from mdpipe.reporting.images import image_grid, save_image  # Pillow, which a machine that samples text may lack.

    path, images = Path(out), _pixels(model, tokens)
    if _is_folder(out):
        digits = max(DIGITS, len(str(len(images))))
        files = [path / f"{model.name}-{number:0{digits}d}.png" for number in range(1, len(images) + 1)]
        for image, target in zip(images, files, strict=True):
            save_image(image, target)
        is_sample = re.compile(rf"{model.name}-\d{{{DIGITS},}}\.png")
        for other in set(path.iterdir()).difference(files):
            if is_sample.fullmatch(other.name):
                other.unlink()
    elif path.suffix.lower() in ARRAY_SUFFIXES:
        file = io.BytesIO()
        if path.suffix.lower() == ".npy":
            np.save(file, images, allow_pickle=False)
        else:
            np.savez(file, images=images)
        atomic_write(path, file.getvalue())
    else:
        shown = images if known is None else np.concatenate([_pixels(model, known), images])
        save_image(np.asarray(image_grid(shown, COLUMNS, max(1, SHOWN_EDGE // model.shape[0]))), path)
    sys.stdout.write(f"{out}\n")


def _pixels(model: TrainedModel, tokens: Tensor) -> NDArray[np.uint8]:
    """Return images as uint8 (N, H, W, C)."""
    return dequantize(tokens.numpy(), model.objective.vocab_size).reshape(-1, *model.shape)


def _is_folder(out: str) -> bool:
    return out.endswith("/") or Path(out).is_dir()
