"""Stage `sample`: samples of a run as text or images, and an animation of their unmasking.

Shapes: N samples, L tokens of each, F frames.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.data.artifacts.files import atomic_dir, write_csv, write_json, write_record
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.pixels import to_images
from mdpipe.data.tokenizers import decode_for_people, decode_samples, load_tokenizer
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths, sampling
from mdpipe.pipeline.model_io import TrainedModel, load_model
from mdpipe.reporting.animation import hatch_masked, image_unmasking_gif, text_unmasking_gif
from mdpipe.reporting.images import COLUMNS, SHOWN_EDGE, compose, contact_sheet, save_png, sheet_columns

ANIMATED_IMAGES = 32
ANIMATED_TEXTS = 4
INFILLED_IMAGES = COLUMNS
INFILLED_TEXTS = 4
"""Held-out examples that are partly masked and filled."""


def sample(params: Params, run: str) -> None:
    """Sample from a run; write samples/RUN, and the metrics and record sample/RUN.

    samples.txt or samples.png   the samples
    unmasking.gif                how the first of them were unmasked
    tokens.npy                   int64 (N, L)
    classes.json                 the class name of each sample in order, if the run is conditioned on named classes
    exponents.csv                GenMD4: the exponent of every token's schedule
    infilling.json or .png       held-out texts with a filled span, or images with a filled half, and the originals;
                                 not of a run that samples from left to right

    Raises:
        ValueError: The model or the dataset is missing or broken, or has fewer than two held-out examples.
    """
    settings = params.runs[run].sample
    configure_runtime(threads=1)
    model = load_model(run)
    start = sampling.all_masked(model, settings.count)
    class_labels = sampling.classes_in_turn(model, settings.count)
    frames: list[Tensor] = [start[:ANIMATED_IMAGES]]
    samples = sampling.sample(
        model,
        settings,
        start,
        CounterRNG(params.seed_of(run), "sample"),
        class_labels=class_labels,
        on_step=lambda _, __, tokens: frames.append(tokens[:ANIMATED_IMAGES].cpu()),
    )
    tokens = samples.tokens.numpy()
    with atomic_dir(paths.samples(run)) as folder:
        np.save(folder / "tokens.npy", tokens, allow_pickle=False)
        if class_labels is not None and model.class_names:
            names = [model.class_names[label] for label in class_labels]
            write_json(folder / "classes.json", {"classes": names})
        write = _write_texts if model.modality == "text" else _write_images
        write(folder, model, tokens, torch.stack(frames).numpy())
        if isinstance(model.objective, GenMD4):
            _write_exponents(folder / paths.EXPONENTS, model, model.objective.schedule.w.tolist())
        if not model.objective.is_causal:
            _write_infilling(folder, model, params, run)
    counts = np.bincount(tokens.flatten())
    frequencies = counts[counts > 0] / counts.sum()
    record = {
        "run": run,
        "dataset": model.dataset,
        "modality": model.modality,
        "sampler": settings.sampler.kind,
        "samples": settings.count,
        "steps": getattr(settings.sampler, "steps", None),
        "time_grid": getattr(settings.sampler, "time_grid", None),
        "class_cond": model.class_cond,
        **settings.model_dump(include={"temperature", "top_k", "top_p", "guidance_scale"}),
        "unit": model.unit,
        "nfe": samples.nfe,
        "seed": params.seed_of(run),
        # In bits, of the tokens of all samples: low if they repeat themselves.
        "entropy": float(-(frequencies * np.log2(frequencies)).sum()),
    }
    write_record(record, paths.record("sample", run), paths.metrics("sample", run))


def _write_texts(folder: Path, model: TrainedModel, tokens: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    tokenizer = load_tokenizer(model.directory)
    (folder / "samples.txt").write_text("\n".join(decode_samples(tokenizer, tokens)), encoding="utf-8")
    shown = (decode_for_people(tokenizer, np.array([token])) for token in range(tokenizer.vocab_size))
    symbols = [*shown, None]  # the mask comes last
    moments = [[[symbols[token] for token in row] for row in frame] for frame in frames[:, :ANIMATED_TEXTS]]
    (folder / "unmasking.gif").write_bytes(text_unmasking_gif(moments))


def _write_images(folder: Path, model: TrainedModel, tokens: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    levels, columns = model.objective.vocab_size, sheet_columns(model.num_classes)
    scale = max(1, SHOWN_EDGE // model.shape[0])
    save_png(contact_sheet(to_images(tokens, levels, model.shape), columns), folder / "samples.png")
    whole_rows = max(1, frames.shape[1] // columns) * columns
    frames = frames[:, :whole_rows]
    masked = frames == levels
    known = to_images(np.where(masked, 0, frames), levels, model.shape)
    gif = image_unmasking_gif(known, masked.reshape(known.shape), columns, scale)
    (folder / "unmasking.gif").write_bytes(gif)


def _write_infilling(folder: Path, model: TrainedModel, params: Params, run: str) -> None:
    """Fill the middle quarter of held-out windows of text, or the lower half of held-out images."""
    dataset = EncodedDataset.open(paths.encoded(model.dataset), params.runs[run].evaluate.split)
    original, labels = dataset.spaced_examples(INFILLED_TEXTS if model.modality == "text" else INFILLED_IMAGES)
    length = original.shape[1]
    is_masked = np.zeros(length, dtype=np.bool_)
    is_masked[slice(3 * length // 8, 5 * length // 8) if model.modality == "text" else slice(length // 2, None)] = True
    filled = sampling.sample(
        model,
        params.runs[run].sample,
        torch.from_numpy(np.where(is_masked, model.objective.mask_id, original)),
        CounterRNG(params.seed_of(run), "infill"),
        class_labels=torch.from_numpy(labels) if model.num_classes and labels is not None else None,
    ).tokens.numpy()
    if model.modality == "text":
        decode = partial(decode_for_people, load_tokenizer(model.directory))
        span = np.flatnonzero(is_masked)
        texts = [
            {
                "before": decode(of_original[: span[0]]),
                "original": decode(of_original[span]),
                "filled": decode(of_filled[span]),
                "after": decode(of_original[span[-1] + 1 :]),
            }
            for of_original, of_filled in zip(original, filled, strict=True)
        ]
        write_json(folder / paths.INFILLED_TEXTS, {"texts": texts})
        return
    rows = np.concatenate([original, original, filled])
    masked = np.zeros(rows.shape, dtype=np.bool_)
    masked[len(original) : 2 * len(original)] = is_masked
    images, scale = to_images(rows, model.objective.vocab_size, model.shape), max(1, SHOWN_EDGE // model.shape[0])
    hatched = hatch_masked(images, masked.reshape(images.shape), scale)
    save_png(compose(hatched, len(original)), folder / paths.INFILLED_IMAGES)


def _write_exponents(path: Path, model: TrainedModel, exponents: list[float]) -> None:
    tokens = range(len(exponents))
    symbols = [*map(str, tokens)]
    if model.modality == "text":
        tokenizer = load_tokenizer(model.directory)
        symbols = [tokenizer.decode(np.array([token])) for token in tokens]
    write_csv(path, ("token", "symbol", "exponent"), zip(tokens, symbols, exponents, strict=True))
