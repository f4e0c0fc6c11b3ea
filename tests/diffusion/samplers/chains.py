"""Walks over all sequences of tokens and masks, enumerated: the exact distributions that samplers draw from.

Shapes: L positions, V vocabulary, C = (V + 1)^L corrupted sequences, as `contexts` lists them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from tests.diffusion.tables import Tabular, contexts


def move(denoiser: Tabular, time: float, share: float | Tensor, masking: float, start: Tensor) -> Tensor:
    """One step's transitions (C, C): masks are revealed with probability share (of V, or one), tokens masked again.

    Positions given in `start` (L,) stay. Share 0 is the forward process, masking 0 Algorithm 2.
    """
    mask = denoiser.vocabulary
    states = contexts(mask, len(start))
    with torch.no_grad():
        mu = denoiser.head(denoiser(states, torch.full((len(states),), time), None)).softmax(dim=2)
    revealing = torch.cat([share * mu, ((1 - share) * mu).sum(dim=2, keepdim=True)], dim=2)
    staying = torch.nn.functional.one_hot(states, mask + 1).double()
    rate = masking * (start == mask)[:, None]
    forgetting = (1 - rate) * staying + rate * torch.nn.functional.one_hot(torch.tensor(mask), mask + 1)
    kernel = torch.where((states == mask)[..., None], revealing, forgetting)
    return torch.stack([kernel[:, place, states[:, place]] for place in range(len(start))]).prod(dim=0)


def outcome(start: Tensor, moves: Iterable[Tensor], vocabulary: int) -> Tensor:
    """Chances (C,) of all sequences after the moves from `start` (L,)."""
    chances = (contexts(vocabulary, len(start)) == start).all(dim=1).double()
    for transitions in moves:
        chances = chances @ transitions
    return chances


def counts_of(samples: Tensor, vocabulary: int) -> Tensor:
    """How often each of the C sequences is among the samples (B, L)."""
    length = samples.shape[1]
    places = (vocabulary + 1) ** torch.arange(length - 1, -1, -1)
    return torch.bincount(samples @ places, minlength=(vocabulary + 1) ** length)


def levels(schedule, times: Tensor) -> list[tuple[float, float, float]]:
    """(t, alpha(t), alpha(s)) of each step over rising `times`; the last, from time 0 on, reveals all."""
    alphas = [*schedule.alpha(times.flip(0)).tolist(), 1.0]
    return list(zip(times.flip(0).tolist(), alphas[:-1], alphas[1:], strict=True))
