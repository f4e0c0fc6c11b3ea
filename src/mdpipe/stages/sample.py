"""Stage `sample`: what a run draws, as text or as pictures, and how it comes out of the mask."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.data.aside import folder_aside
from mdpipe.data.pixels import dequantize
from mdpipe.data.tokenizers import Tokenizer, load_tokenizer
from mdpipe.diffusion.grids import build_grid
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.ancestral import ancestral
from mdpipe.networks.transformer import Transformer
from mdpipe.networks.unet import UNet
from mdpipe.params import Params
from mdpipe.reporting.animation import image_unmasking_gif
from mdpipe.reporting.metrics import write_metrics
from mdpipe.reporting.pictures import image_grid, save_png
from mdpipe.reporting.text_animation import text_unmasking_gif
from mdpipe.stages import paths
from mdpipe.stages.trained import TrainedRun, load_run
from mdpipe.training.determinism import make_deterministic

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

    Raises:
        ValueError: the model is missing or broken.
    """
    settings = params.runs[run].sample
    make_deterministic(threads=1)
    trained = load_run(run)
    moments: list[Tensor] = []
    calls = CountedCalls(trained.network)
    vocabulary = trained.objective.vocabulary
    device = next(trained.network.parameters()).device
    start = torch.full((settings.count, math.prod(trained.shape)), vocabulary, device=device)
    tokens = ancestral(
        calls,
        trained.objective.schedule,
        vocabulary,
        start,
        build_grid(settings.grid, settings.steps),
        Noise(params.seed, "sample"),
        torch.arange(settings.count, device=device),
        on_step=lambda _, tokens: moments.append(tokens[:ANIMATED].cpu()),
    )
    frames = torch.stack([start[:ANIMATED].cpu(), *moments]).numpy()
    _write_samples(trained, paths.samples(run), tokens.cpu().numpy(), frames)
    metrics = {
        "run": run,
        "dataset": trained.dataset,
        "modality": trained.modality,
        "sampler": "ancestral",
        "samples": settings.count,
        "steps": settings.steps,
        "grid": settings.grid,
        "network_calls": calls.count,
        "seed": params.seed,
        "entropy": _entropy(tokens.flatten().bincount(minlength=vocabulary).cpu().numpy()),
    }
    write_metrics(paths.metrics("sample", run), metrics)


def _write_samples(trained: TrainedRun, directory: Path, tokens: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    with folder_aside(directory) as folder:
        np.save(folder / "tokens.npy", tokens, allow_pickle=False)
        if trained.modality == "text":
            _write_texts(folder, load_tokenizer(trained.directory), tokens, frames[:, :ANIMATED_TEXTS])
        else:
            _write_pictures(folder, trained, tokens, frames)


class CountedCalls:
    """A denoiser that counts how often it is called: what samplers are compared by."""

    def __init__(self, network: Transformer | UNet) -> None:
        self._network = network
        self.count = 0

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """The network's hidden states."""
        self.count += 1
        hidden: Tensor = self._network(tokens, time, condition)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """The network's logits."""
        logits: Tensor = self._network.head(hidden)
        return logits


def _write_texts(folder: Path, tokenizer: Tokenizer, tokens: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    texts = [tokenizer.decode(row) for row in tokens]
    numbered = [f"--- sample {number} ---\n{text}\n" for number, text in enumerate(texts, start=1)]
    (folder / "samples.txt").write_text("\n".join(numbered), encoding="utf-8")
    shown = [tokenizer.decode(np.array([token])) for token in range(tokenizer.vocabulary)]
    moments = [
        [[None if token == len(shown) else shown[token] for token in row] for row in moment] for moment in frames
    ]
    (folder / "unmasking.gif").write_bytes(text_unmasking_gif(moments))


def _write_pictures(folder: Path, trained: TrainedRun, tokens: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    levels = trained.objective.vocabulary
    scale = max(1, SHOWN_EDGE // trained.shape[0])
    pictures = dequantize(tokens, levels).reshape(-1, *trained.shape)
    save_png(image_grid(pictures, COLUMNS, scale), folder / "samples.png")
    masked = frames == levels
    known = dequantize(np.where(masked, 0, frames), levels)
    shape = (*frames.shape[:2], *trained.shape)
    gif = image_unmasking_gif(known.reshape(shape), masked.reshape(shape), COLUMNS, scale)
    (folder / "unmasking.gif").write_bytes(gif)


def _entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in bits of how often each token occurs in all samples: low where they repeat themselves."""
    present = counts[counts > 0] / counts.sum()
    return float(-(present * np.log2(present)).sum())
