"""Sequences longer than the network's window, filled window by window from left to right."""

from typing import TypeVar

from torch import Tensor

from mdpipe.diffusion.choice import Choice
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import PLAIN, OnStep, Sampler

AnySchedule = TypeVar("AnySchedule")


def in_blocks(
    sampler: Sampler[AnySchedule],
    denoiser: Denoiser,
    schedule: AnySchedule,
    vocabulary: int,
    tokens: Tensor,
    noise: Noise,
    examples: Tensor,
    *,
    window: int,
    overlap: int,
    condition: Tensor | None = None,
    choice: Choice = PLAIN,
    on_step: OnStep | None = None,
) -> Tensor:
    """Fill tokens (B, N) of any length N; each window is given the last `overlap` tokens of the one before.

    Every window is full, so the last one of a long sequence starts early enough to end with it, and is given more.
    The arguments are those of a sampler; `on_step` is told of windows instead of steps. The noise of a window is its
    own.

    Args:
        window: tokens that the network takes.
        overlap: tokens of a window that it shares with the one before.

    Raises:
        ValueError: the overlap is negative or leaves nothing of the window.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"sample.blocks.overlap must lie in [0, {window}), window being {window}, not {overlap}")
    length = tokens.shape[1]
    last = max(0, length - window)
    starts = [*range(0, last, window - overlap), last]
    tokens = tokens.clone()
    for done, start in enumerate(starts, start=1):
        block = slice(start, start + window)
        tokens[:, block] = sampler(
            denoiser,
            schedule,
            vocabulary,
            tokens[:, block],
            Noise(noise.seed, f"{noise.purpose}/window {done}"),
            examples,
            condition=condition,
            choice=choice,
        )
        if on_step is not None:
            on_step(done, len(starts), tokens.clone())
    return tokens
