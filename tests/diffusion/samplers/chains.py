"""Markov chains over all sequences of tokens and masks, enumerated: the exact distributions of samplers.

Shapes: L positions, V vocabulary, C = (V + 1)^L sequences of tokens and masks, in the order of `contexts`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mdpipe.evaluation.enumerated import contexts
from tests.diffusion.tables import Tabular


def move(denoiser: Tabular, time: float, unmask_prob: float | Tensor, mask_prob: float, start: Tensor) -> Tensor:
    """Return the transitions (C, C) of a step that unmasks with unmask_prob, () or (V,), and masks with mask_prob.

    Positions given in `start` (L,) stay. unmask_prob = 0 is the forward process, mask_prob = 0 Algorithm 2.
    """
    mask = denoiser.vocab_size
    states = contexts(mask, len(start))
    with torch.no_grad():
        mu = denoiser.head(denoiser(states, torch.full((len(states),), time), None)).softmax(dim=2)
    unmasking = torch.cat([unmask_prob * mu, ((1 - unmask_prob) * mu).sum(dim=2, keepdim=True)], dim=2)
    staying = torch.nn.functional.one_hot(states, mask + 1).double()
    rate = mask_prob * (start == mask)[:, None]
    masking = (1 - rate) * staying + rate * torch.nn.functional.one_hot(torch.tensor(mask), mask + 1)
    kernel = torch.where((states == mask)[..., None], unmasking, masking)
    return torch.stack([kernel[:, place, states[:, place]] for place in range(len(start))]).prod(dim=0)


def outcome(start: Tensor, moves: Iterable[Tensor], vocab_size: int) -> Tensor:
    """Return the probabilities (C,) of all sequences after the moves from `start` (L,)."""
    chances = (contexts(vocab_size, len(start)) == start).all(dim=1).double()
    for transitions in moves:
        chances = chances @ transitions
    return chances


def counts_of(samples: Tensor, vocab_size: int) -> Tensor:
    """Count each of the C sequences among the samples (B, L)."""
    length = samples.shape[1]
    places = (vocab_size + 1) ** torch.arange(length - 1, -1, -1)
    return torch.bincount(samples @ places, minlength=(vocab_size + 1) ** length)


def levels(schedule, times: Tensor) -> list[tuple[float, float, float]]:
    """Return (t, alpha(t), alpha(s)) of each step over rising `times`; the last, at time 0, unmasks everything."""
    alphas = [*schedule.alpha(times.flip(0)).tolist(), 1.0]
    return list(zip(times.flip(0).tolist(), alphas[:-1], alphas[1:], strict=True))
