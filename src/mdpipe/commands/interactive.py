"""Sampling from the command line: `mdpipe generate` and `mdpipe infill`.

The name of the output file decides its format (`mdpipe generate --help`), and is checked before sampling.

Shapes: N samples, L tokens of each; H, W, C of images.
"""

import difflib
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.commands.sampling_options import SamplingOptions
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.data.pixels import quantize, to_images
from mdpipe.data.tokenizers import decode_samples, load_tokenizer
from mdpipe.data.tokenizers.base import Span, Tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import PARAMS_FILE, load_params
from mdpipe.params.errors import did_you_mean
from mdpipe.pipeline import model_io, paths, sampling
from mdpipe.pipeline.model_io import TrainedModel
from mdpipe.pipeline.preflight import nearest_existing
from mdpipe.progress import count_steps

LISTED = 12
"""Class names in a message."""

MASK = re.compile(r"\[MASK(?::(\d{1,6}))?\]", re.ASCII)
"""`[MASK:12]` means twelve masked tokens, `[MASK]` the number that --mask-length sets."""
ALMOST_MASK = re.compile(r"\[\s*(?:mask|gap)\s*(?:[:=][^\]]*|\d*\s*)\]", re.IGNORECASE)
"""Anything that looks like a mask, including its old form `[gap:12]`."""

SHEETS, ARRAYS = (".png", ".jpg", ".jpeg", ".webp"), (".npy", ".npz")
SUFFIXES = {"texts": (".txt", ".jsonl"), "rows": (".jsonl", ".csv"), "images": SHEETS + ARRAYS}
ALLOWED = {content: ", ".join(suffixes) for content, suffixes in SUFFIXES.items()} | {
    "images": f"{', '.join(SHEETS)} (a sheet of all), {', '.join(ARRAYS)} (an array), or a folder, with / at its end (a"
    " PNG each)"
}
"""Endings of files, and how an error lists them."""

DIGITS = 4
"""Minimum number of digits in the name of an image in a folder."""


def generate(run: str, options: SamplingOptions, count: int, prompt: str, length: int | None, out: str | None) -> None:
    """Sample texts or images; write them to `out`, by default images to RUN.png, and print texts."""
    model = load_run(run, options.threads)
    if model.modality == "image" and (prompt or length is not None):
        raise ValueError(f"run {run!r} samples images, without --prompt and --length; see `mdpipe infill`")
    tokens = sampling.all_masked(model, count, length)
    if model.modality == "text":
        [ids] = _encode_parts(load_tokenizer(model.directory), [prompt])
        _require_length(model, "the prompt and what follows it", len(ids) + 1, length)
        tokens[:, : len(ids)] = torch.from_numpy(ids)
    _sample(model, tokens, options, out)


def infill_text(
    run: str, options: SamplingOptions, count: int, text: str, mask_length: int, length: int | None, out: str | None
) -> None:
    """Fill the masks of a text of at most `length` tokens `count` times; write the texts to `out`, or print them."""
    model = load_run(run, options.threads)
    if model.modality != "text":
        raise ValueError(f"run {run!r} samples images; give --image and --mask instead of --text")
    tokens = encode_with_masks(load_tokenizer(model.directory), text, mask_length)
    _require_length(model, "the text and its masks", tokens.shape[1], length)
    _sample(model, tokens.expand(count, -1), options, out)


def infill_image(run: str, options: SamplingOptions, count: int, image: Path, mask: Path, out: str | None) -> None:
    """Fill the masked part of an image `count` times; write the images to `out`, by default to RUN.png."""
    model = load_run(run, options.threads)
    if model.modality != "image":
        raise ValueError(f"run {run!r} samples text; give --text instead of --image and --mask")
    height, width, channels = model.shape
    pixels = _read_image(image, "L" if channels == 1 else "RGB", (height, width))
    masked = _read_image(mask, "L", (height, width)) > 0  # (H, W, 1)
    if not masked.any():
        raise ValueError(f"{mask} is black everywhere, which leaves nothing to fill")
    levels = quantize(pixels, maximum=255, levels=model.objective.vocab_size).astype(np.int64)
    tokens = torch.from_numpy(np.where(masked, model.objective.mask_id, levels).reshape(1, -1))
    known = torch.from_numpy(np.where(masked, 0, levels).reshape(1, -1))
    _sample(model, tokens.expand(count, -1), options, out, known)


def _require_length(model: TrainedModel, what: str, tokens: int, length: int | None) -> None:
    """Pass if a text fits into `length` tokens, by default the model's window: longer ones are for those who ask.

    Raises:
        ValueError: It does not fit.
    """
    if tokens > (length or model.seq_len):
        raise ValueError(
            f"{what} need {tokens} tokens, of {length or model.seq_len} at most; give --length {tokens} or more (texts"
            f" longer than the model's window of {model.seq_len} tokens are sampled window by window)"
        )


def _sample(
    model: TrainedModel, tokens: Tensor, options: SamplingOptions, out: str | None, known: Tensor | None = None
) -> None:
    """Fill the masked positions of tokens (N, L), with a progress bar on the standard error, and write the samples.

    A sheet of images begins with the one that they fill, `known` (1, H W C).
    """
    if model.modality == "image":
        out = out or f"{model.name}.png"
    require_writable(out, "texts" if model.modality == "text" else "images")
    objective = model.objective.config
    config = options.resolve(model.name, objective)
    masked = tokens == model.objective.mask_id
    if objective.is_causal and (masked[:, :-1] & ~masked[:, 1:]).any():
        raise ValueError(
            f"a run of {objective.kind} samples from left to right, without regard to the text after a mask: it fills"
            " one mask, at the end"
        )
    labels = None if options.label is None else torch.full((len(tokens),), class_label(model, options.label))
    rng = CounterRNG(options.seed, "by hand")
    with count_steps("sampling") as show:
        samples = sampling.sample(
            model, config, tokens, rng, class_labels=labels, on_step=lambda done, steps, _: show(done, steps)
        ).tokens
    if out is None or model.modality == "text":
        write_texts(load_tokenizer(model.directory), samples, out)
    else:
        write_images(model, samples, out, known)


def require_writable(out: str | None, content: Literal["texts", "rows", "images"]) -> None:
    """Pass if this content can be written to a file or folder `out`; None is the standard output."""
    if out is None:
        return
    if not (content == "images" if _is_folder(out) else Path(out).suffix.lower() in SUFFIXES[content]):
        raise ValueError(f"--out {out} does not say how to write {content}; allowed: {ALLOWED[content]}")
    target = Path(out).absolute()
    folder = nearest_existing(target if _is_folder(out) else target.parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--out {out} cannot be written: {folder} is not a folder in which files can be made")
    if target.exists() and not os.access(out, os.W_OK):
        raise ValueError(f"--out {out} cannot be written: it is write-protected")


def write_texts(tokenizer: Tokenizer, tokens: Tensor, out: str | None) -> None:
    """Write texts (N, L) and print where they are; without `out`, print them under numbered headings.

    Where a document ends is shown to people, and not in JSON lines, which have the text that is scored.
    """
    numbered = "".join(decode_samples(tokenizer, tokens.numpy()))
    if out is None:
        sys.stdout.write(numbered)
        return
    texts = map(tokenizer.decode, tokens.numpy())
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    atomic_write(Path(out), (lines if Path(out).suffix.lower() == ".jsonl" else numbered).encode())
    sys.stdout.write(f"{out}\n")


def write_images(model: TrainedModel, tokens: Tensor, out: str, known: Tensor | None = None) -> None:
    """Write images (N, H W C) to a file or a folder, where they replace those of an earlier call; print where they are.

    A sheet begins with the image that they fill, `known` (1, H W C).
    """
    from mdpipe.reporting.images import contact_sheet, save_image  # Pillow, which a machine that samples text may lack.

    path, levels = Path(out), model.objective.vocab_size
    images = to_images(tokens.numpy(), levels, model.shape)
    if _is_folder(out):
        digits = max(DIGITS, len(str(len(images))))
        files = [path / f"{model.name}-{number:0{digits}d}.png" for number in range(1, len(images) + 1)]
        for image, target in zip(images, files, strict=True):
            save_image(image, target)
        is_sample = re.compile(rf"{model.name}-\d{{{DIGITS},}}\.png")
        for other in set(path.iterdir()).difference(files):
            if is_sample.fullmatch(other.name):
                other.unlink()
    elif (suffix := path.suffix.lower()) in ARRAYS:
        file = io.BytesIO()
        np.save(file, images, allow_pickle=False) if suffix == ".npy" else np.savez(file, images=images)
        atomic_write(path, file.getvalue())
    else:
        shown = tokens if known is None else torch.cat([known, tokens])
        save_image(np.asarray(contact_sheet(to_images(shown.numpy(), levels, model.shape))), path)
    sys.stdout.write(f"{out}\n")


def _is_folder(out: str) -> bool:
    return out.endswith("/") or Path(out).is_dir()


def encode_with_masks(tokenizer: Tokenizer, text: str, mask_length: int) -> Tensor:
    """Return the tokens (1, L) of a text with masks."""
    for marker in ALMOST_MASK.findall(text):
        if not (found := MASK.fullmatch(marker)) or found[1] == "0":
            raise ValueError(f"{marker} is not a mask; write [MASK], or [MASK:12] for twelve tokens")
    parts = MASK.split(text)
    first, *others = _encode_parts(tokenizer, parts[::2])
    spans = [first]
    for length, ids in zip(parts[1::2], others, strict=True):
        spans += [np.full(int(length or mask_length), tokenizer.vocab_size), ids]
    tokens = torch.from_numpy(np.concatenate(spans))[None]
    if not (tokens == tokenizer.vocab_size).any():
        raise ValueError("the text has no mask to fill; write one as [MASK], or as [MASK:12] for twelve tokens")
    return tokens


def class_label(model: TrainedModel, name: str) -> int:
    """Return the class with this name, or else with this number."""
    if name in model.class_names:
        return model.class_names.index(name)
    if name.isdecimal() and int(name) < model.num_classes:
        return int(name)
    known = f"the classes 0 to {model.num_classes - 1}" if model.num_classes else "no classes"
    if model.class_names:
        similar = difflib.get_close_matches(name, model.class_names, LISTED)
        listed = list(dict.fromkeys([*similar, *model.class_names]))[:LISTED]
        known += f", named {', '.join(listed)}{' and others' * (len(model.class_names) > len(listed))}"
    raise ValueError(f"--label {name} is not known: run {model.name!r} has {known}")


def load_run(run: str, threads: int) -> TrainedModel:
    """Load the model of a run that is trained, after configuring the process.

    If params.yaml describes another model of this name by now, the standard error says so.

    Raises:
        ValueError: There is no such run, or its model is missing or broken.
    """
    trained, runs = paths.trained_runs(), load_params().runs if PARAMS_FILE.exists() else {}
    if run not in {*trained, *runs}:
        hint = did_you_mean(run, [*trained, *runs])
        untrained = sorted(runs.keys() - set(trained))
        others = f"; in params.yaml and not trained: {', '.join(untrained)}" if untrained else ""
        raise ValueError(f"there is no run {run!r}{hint}; trained in models/: {', '.join(trained) or 'none'}{others}")
    configure_runtime(threads)
    model = model_io.load_model(run)
    if stated := runs.get(run):
        pairs = {
            "dataset": (model.dataset, stated.dataset),
            "objective": (model.objective.config, stated.objective),
            "network": (model.network.config, stated.network),
        }
        if changed := [f"runs.{run}.{key}" for key, (before, now) in pairs.items() if before != now]:
            sys.stderr.write(
                f"mdpipe: models/{run} was trained before {' and '.join(changed)} changed in params.yaml;"
                f" `dvc repro train@{run}` trains it again\n"
            )
    return model


def _encode_parts(tokenizer: Tokenizer, parts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Encode the parts of a text between which tokens will be sampled; report on the standard error which change."""
    spans: list[NDArray[np.int64]] = []
    for part in parts:
        try:
            part.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the text {part!r} is not UTF-8; set the terminal to it, or convert the text") from None
        span = tokenizer.encode_span(part, begins=not spans)
        if span.text != part:
            sys.stderr.write(f"mdpipe: {describe_change(part, span)}\n")
        spans.append(span.ids)
    return spans


def describe_change(text: str, span: Span) -> str:
    """Return how the tokenizer changes a text, for a message."""
    return f"the run's tokenizer reads {text!r} as {span.text!r}"


def _read_image(path: Path, mode: Literal["L", "RGB"], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C)."""
    from mdpipe.data.sources.images import decode_image  # Pillow, which a machine that infills text may lack.

    if not path.is_file():
        raise ValueError(f"{path} is not a file; name an image of {size[0]} x {size[1]} pixels")
    pixels = decode_image(path, str(path), Counter(), mode)
    if pixels.shape[:2] != size:
        found = " x ".join(map(str, pixels.shape[:2]))
        raise ValueError(f"{path} has {found} pixels; the run's images have {size[0]} x {size[1]}")
    return pixels
