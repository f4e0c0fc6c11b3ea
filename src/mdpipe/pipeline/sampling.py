"""Sampling from a trained model, as stages and commands do it.

Shapes: N samples, L tokens of each.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ClassifierFreeGuidance, Denoiser, TokenSampler
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import OnStep, Sampler, sample_sliding_window
from mdpipe.params import SampleConfig
from mdpipe.pipeline.model_io import TrainedModel

OVERLAP = 2
"""The fraction 1 / OVERLAP of a window is carried over to the next if samples are longer than a window."""


@dataclass(frozen=True)
class Samples:
    """Tokens on the CPU, and the number of function evaluations that they took."""

    tokens: Tensor
    """(N, L) int64 below V."""
    nfe: int


class CallCounter:
    """A denoiser that counts its calls, the rows that its body ran on and the positions that its head ran on."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.calls = self.rows = self.positions = 0

    def __call__(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """Return the denoiser's hidden states."""
        self.calls += 1
        self.rows += len(tokens)
        return self.denoiser(tokens, t, class_labels)

    def head(self, hidden: Tensor) -> Tensor:
        """Return the denoiser's logits."""
        self.positions += hidden.shape[:-1].numel()
        return self.denoiser.head(hidden)


def all_masked(model: TrainedModel, count: int, seq_len: int | None = None) -> Tensor:
    """Return `count` sequences of masks, by default of the model's own length."""
    return torch.full((count, seq_len or model.seq_len), model.objective.mask_id)


def classes_in_turn(model: TrainedModel, count: int) -> Tensor | None:
    """Return the class of each of `count` samples, 0, 1, ... and 0 again; None of a model without classes."""
    return torch.arange(count) % model.num_classes if model.num_classes else None


def sample(
    model: TrainedModel,
    config: SampleConfig,
    tokens: Tensor,
    rng: CounterRNG,
    *,
    class_labels: Tensor | None = None,
    on_step: OnStep | None = None,
    first: int = 0,
) -> Samples:
    """Fill the masked positions of tokens (N, L), window by window if L is more than the model's window.

    Args:
        config: The sampler, the choice of tokens and the guidance; their number is that of the tokens.
        tokens: Known tokens and masks.
        rng: The random numbers; sample i uses those of example first + i.
        class_labels: (N,), or None.
        first: Number of samples in earlier batches.
    """
    device = next(model.network.parameters()).device
    denoiser: Denoiser = (counter := CallCounter(model.denoiser))
    if config.guidance_scale is not None:
        denoiser = ClassifierFreeGuidance(counter, config.guidance_scale, model.num_classes)
    sampler: Sampler[Any] = Sampler.build(config.sampler)
    sample_window = partial(
        sampler,
        denoiser,
        model.schedule,
        model.objective.vocab_size,
        examples=torch.arange(first, first + len(tokens), device=device),
        class_labels=None if class_labels is None else class_labels.to(device),
        token_sampler=TokenSampler(config.temperature, config.top_k, config.top_p),
    )
    if tokens.shape[1] > model.seq_len:
        size = {"window": model.seq_len, "overlap": model.seq_len // OVERLAP}
        sampled = sample_sliding_window(sample_window, tokens.to(device), rng, **size, on_step=on_step)
    else:
        sampled = sample_window(tokens.to(device), rng, on_step=on_step)
    return Samples(sampled.cpu(), counter.calls)
