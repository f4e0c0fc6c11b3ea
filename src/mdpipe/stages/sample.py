"""Stage `sample`: what a run draws, as text or as pictures, and how it comes out of the mask."""

import csv
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.data.artifacts.files import atomic_dir, write_json
from mdpipe.data.artifacts.metrics import write_metrics
from mdpipe.data.pixels import dequantize
from mdpipe.data.tokenizers import Tokenizer, load_tokenizer
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import build_sampler
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.reporting.animation import image_unmasking_gif, text_unmasking_gif
from mdpipe.reporting.images import image_grid, save_png
from mdpipe.stages.model_io import TrainedRun, load_run
from mdpipe.stages.sampling import draw, unknown

ANIMATED = 32
"""Samples shown on their way out of the mask; of texts, which are larger on a screen, the first four."""

ANIMATED_TEXTS = 4
COLUMNS = 8
"""Pictures in a row."""

SHOWN_EDGE = 64
"""Pictures are enlarged to about so many pixels."""


def sample(params: Params, run: str) -> None:
    """Draw samples; write samples/RUN and metrics/sample/RUN.json.

    samples.txt or samples.png   what was drawn
    unmasking.gif                how the first of them came out of the mask
    tokens.npy                   int64 (count, L)
    classes.json                 of a run that knows classes with names, the name of each sample's class, in order
    exponents.csv                GenMD4: the exponent of every token's schedule

    Raises:
        ValueError: the model is missing or broken.
    """
    settings = params.runs[run].sample
    configure_runtime(threads=1)
    trained = load_run(run)
    start = unknown(trained, settings.count)
    # Every class in turn.
    classes = torch.arange(settings.count) % trained.classes if trained.classes else None
    moments: list[Tensor] = []
    drawn = draw(
        trained,
        build_sampler(settings.sampler),
        start,
        CounterRNG(params.seed, "sample"),
        choice=TokenSampler(settings.temperature, settings.top_k, settings.top_p),
        classes=classes,
        guidance=settings.guidance_scale,
        on_step=lambda _, __, tokens: moments.append(tokens[:ANIMATED].cpu()),
    )
    frames = torch.stack([start[:ANIMATED], *moments]).numpy()
    names = [trained.class_names[number] for number in classes] if classes is not None and trained.class_names else []
    _write_samples(trained, run, drawn.tokens.numpy(), frames, names)
    metrics = {
        "run": run,
        "dataset": trained.dataset,
        "modality": trained.modality,
        "sampler": settings.sampler.kind,
        "samples": settings.count,
        "steps": getattr(settings.sampler, "steps", None),
        "grid": getattr(settings.sampler, "time_grid", None),
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "condition": trained.condition,
        "guidance": settings.guidance_scale,
        "unit": trained.unit,
        "network_calls": drawn.network_calls,
        "seed": params.seed,
        "entropy": _entropy(drawn.tokens.flatten().bincount(minlength=trained.objective.vocab_size).numpy()),
    }
    write_metrics(paths.metrics("sample", run), metrics)


def _write_samples(
    trained: TrainedRun, run: str, tokens: NDArray[np.int64], frames: NDArray[np.int64], names: list[str]
) -> None:
    with atomic_dir(paths.samples(run)) as folder:
        np.save(folder / "tokens.npy", tokens, allow_pickle=False)
        if names:
            write_json(folder / paths.sampled_classes(run).name, {"classes": names})
        if trained.modality == "text":
            _write_texts(folder, load_tokenizer(trained.directory), tokens, frames[:, :ANIMATED_TEXTS])
        else:
            _write_pictures(folder, trained, tokens, frames)
        if isinstance(trained.objective, GenMD4):
            (folder / paths.exponents(run).name).write_text(_exponents(trained, trained.objective), encoding="utf-8")


def _write_texts(folder: Path, tokenizer: Tokenizer, tokens: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    texts = [tokenizer.decode(row) for row in tokens]
    numbered = [f"--- sample {number} ---\n{text}\n" for number, text in enumerate(texts, start=1)]
    (folder / "samples.txt").write_text("\n".join(numbered), encoding="utf-8")
    shown = _symbols(tokenizer)
    moments = [
        [[None if token == len(shown) else shown[token] for token in row] for row in moment] for moment in frames
    ]
    (folder / "unmasking.gif").write_bytes(text_unmasking_gif(moments))


def _write_pictures(folder: Path, trained: TrainedRun, tokens: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    levels = trained.objective.vocab_size
    scale = max(1, SHOWN_EDGE // trained.shape[0])
    pictures = dequantize(tokens, levels).reshape(-1, *trained.shape)
    save_png(image_grid(pictures, COLUMNS, scale), folder / "samples.png")
    masked = frames == levels
    known = dequantize(np.where(masked, 0, frames), levels)
    shape = (*frames.shape[:2], *trained.shape)
    gif = image_unmasking_gif(known.reshape(shape), masked.reshape(shape), COLUMNS, scale)
    (folder / "unmasking.gif").write_bytes(gif)


def _exponents(trained: TrainedRun, objective: GenMD4) -> str:
    """Which tokens are revealed early in sampling (large exponents) and which late, as CSV."""
    exponents = objective.schedule.w.tolist()
    symbols = (
        _symbols(load_tokenizer(trained.directory)) if trained.modality == "text" else map(str, range(len(exponents)))
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("token", "symbol", "exponent"))
    for token, (symbol, exponent) in enumerate(zip(symbols, exponents, strict=True)):
        writer.writerow((token, symbol, f"{exponent:.6g}"))
    return text.getvalue()


def _symbols(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(np.array([token])) for token in range(tokenizer.vocab_size)]


def _entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in bits of how often each token occurs in all samples: low where they repeat themselves."""
    present = counts[counts > 0] / counts.sum()
    return float(-(present * np.log2(present)).sum())
