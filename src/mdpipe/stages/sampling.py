"""Drawing from a trained run: what the stages and the commands by hand that sample have in common."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ClassifierFreeGuidance, Denoiser
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import OnStep, Sampler, sample_sliding_window
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.stages.model_io import TrainedRun

OVERLAP = 2
"""Of a window, the inverse of the share that is carried over to the next where samples are longer than a window."""


@dataclass(frozen=True)
class Drawn:
    """Samples on the CPU, and what they took."""

    tokens: Tensor
    """(N, L) int64 below V."""
    network_calls: int


class CountedCalls:
    """A denoiser that counts how often it is called: what samplers are compared by."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self.count = 0

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """The denoiser's hidden states."""
        self.count += 1
        return self._denoiser(tokens, time, condition)

    def head(self, hidden: Tensor) -> Tensor:
        """The denoiser's logits."""
        return self._denoiser.head(hidden)


def unknown(trained: TrainedRun, count: int, length: int | None = None) -> Tensor:
    """`count` samples of nothing but masks, of the model's own length if no other is asked for."""
    return torch.full((count, length or trained.length), trained.objective.mask_id)


def draw(
    trained: TrainedRun,
    sampler: Sampler[Any],
    tokens: Tensor,
    noise: CounterRNG,
    *,
    choice: TokenSampler,
    classes: Tensor | None = None,
    guidance: float | None = None,
    on_step: OnStep | None = None,
) -> Drawn:
    """Fill the masked positions of tokens (N, L); where L is more than the model's window, window by window.

    Args:
        trained: the model.
        sampler: how.
        tokens: what is given, and masks.
        noise: the source; sample i draws from example i.
        choice: how a token is chosen from its logits.
        classes: (N,) to be told to the model, or None.
        guidance: scale of classifier-free guidance, or None.
        on_step: called after each step.
    """
    device = next(trained.network.parameters()).device
    calls = CountedCalls(trained.denoiser)
    denoiser: Denoiser = calls if guidance is None else ClassifierFreeGuidance(calls, guidance, trained.classes)
    fill = partial(sample_sliding_window, sampler, window=trained.length, overlap=trained.length // OVERLAP)
    filled = (fill if tokens.shape[1] > trained.length else sampler)(
        denoiser,
        trained.schedule,
        trained.objective.vocab_size,
        tokens.to(device),
        noise,
        torch.arange(len(tokens), device=device),
        class_labels=None if classes is None else classes.to(device),
        token_sampler=choice,
        on_step=on_step,
    )
    return Drawn(filled.cpu(), calls.count)
