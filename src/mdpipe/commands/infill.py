"""`mdpipe infill`: fill the gaps of a text, or the masked part of a picture, with a run."""

import re
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.commands.interactive import encode_prompt, fill, open_run
from mdpipe.commands.sample_files import require_sample_path, write_images, write_texts
from mdpipe.commands.sampling_options import SamplingOptions
from mdpipe.data.pixels import quantize
from mdpipe.data.tokenizers import Tokenizer, load_tokenizer
from mdpipe.stages.model_io import TrainedRun

GAP = re.compile(r"\[gap(?::(\d{1,6}))?\]", re.ASCII)
"""`[gap:12]` is a gap of twelve tokens, `[gap]` one of as many as --gap says."""
MARKER = re.compile(r"\[\s*gap\s*(?:[:=][^\]]*|\d*\s*)\]", re.IGNORECASE)
"""What looks like the mark of a gap."""


def infill_text(run: str, options: SamplingOptions, count: int, text: str, gap: int, out: str | None) -> None:
    """Write the text with its gaps filled, `count` times, to `out`, or print it.

    Raises:
        ValueError: the text has no gap or cannot be spelled, the run draws pictures, or an option does not fit it.
    """
    trained = open_run(run, options)
    if trained.modality != "text":
        raise ValueError(f"run {run!r} draws pictures; give --image and --mask instead of --text")
    require_sample_path(out, "text")
    tokenizer = load_tokenizer(trained.directory)
    tokens = with_gaps(tokenizer, text, gap).expand(count, -1)
    write_texts(tokenizer, fill(trained, tokens, options).tokens, out)


def with_gaps(tokenizer: Tokenizer, text: str, gap: int) -> Tensor:
    """The tokens (1, L) of a text with masks for its gaps.

    Raises:
        ValueError: there is no gap, or the tokenizer cannot spell a part of the text.
    """
    for marker in MARKER.findall(text):
        if not (found := GAP.fullmatch(marker)) or found[1] == "0":
            raise ValueError(f"{marker} marks no gap; write [gap], or [gap:12] for a gap of twelve tokens")
    pieces = GAP.split(text)
    first, *rest = encode_prompt(tokenizer, pieces[::2])
    parts = [first]
    for size, after in zip(pieces[1::2], rest, strict=True):
        parts += [np.full(int(size or gap), tokenizer.vocab_size), after]
    tokens = torch.from_numpy(np.concatenate(parts))[None]
    if not (tokens == tokenizer.vocab_size).any():
        raise ValueError("the text has no gap to fill; mark one with [gap], or with [gap:12] for twelve tokens")
    return tokens


def infill_picture(run: str, options: SamplingOptions, count: int, image: Path, mask: Path, out: str | None) -> None:
    """Write `count` pictures with the masked part of one drawn anew to `out` (or RUN.png); a sheet has that one first.

    Raises:
        ValueError: a picture has not the size of the run's pictures or cannot be read, the mask hides nothing, the run
            draws text, or an option does not fit it.
    """
    trained = open_run(run, options)
    if trained.modality != "image":
        raise ValueError(f"run {run!r} draws text; give --text instead of --image and --mask")
    out = out or f"{run}.png"
    require_sample_path(out, "image")
    height, width, channels = trained.shape
    pixels = _pixels(image, "L" if channels == 1 else "RGB", (height, width))
    hidden = _pixels(mask, "L", (height, width)) > 0
    if not hidden.any():
        raise ValueError(f"{mask} is black all over, which leaves nothing to draw")
    tokens = masked_tokens(trained, pixels, hidden)
    drawn = fill(trained, tokens.expand(count, -1), options).tokens
    known = torch.where(tokens == trained.objective.mask_id, 0, tokens)
    write_images(trained, drawn, out, known)


def masked_tokens(trained: TrainedRun, pixels: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> Tensor:
    """Tokens (1, H W C) of a picture (H, W, C) of 8-bit values, masked where `hidden` (H, W, 1)."""
    levels = quantize(pixels, maximum=255, levels=trained.objective.vocab_size).astype(np.int64)
    return torch.from_numpy(np.where(hidden, trained.objective.mask_id, levels).reshape(1, -1))


def _pixels(path: Path, mode: Literal["L", "RGB"], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, C)."""
    from mdpipe.data.sources.images import decode_image  # Pillow, which a machine that infills text may lack.

    if not path.is_file():
        raise ValueError(f"{path} is no file; name a picture of {size[0]} x {size[1]} pixels")
    pixels = decode_image(path, str(path), Counter(), mode)
    if pixels.shape[:2] != size:
        found = " x ".join(map(str, pixels.shape[:2]))
        raise ValueError(f"{path} has {found} pixels; the run's pictures have {size[0]} x {size[1]}")
    return pixels
