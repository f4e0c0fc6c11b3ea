"""Denoisers small enough to reason about, and what the samplers' tests share."""

from dataclasses import MISSING, fields

import torch
from torch import Tensor

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.samplers.build import build_sampler, sampler_class
from tests.diffusion.tables import Tabular

NOISE = CounterRNG(0, "test")


def sampler_of(kind: str, steps: int, grid: str = "uniform", **settings: float) -> Sampler:
    """The sampler of this kind, at this grid if it walks one."""
    required = {field.name for field in fields(sampler_class(kind)) if field.default is MISSING}
    walk = {"steps": steps, "grid": grid}
    return build_sampler(kind, **{name: walk[name] for name in required}, **settings)


class CopiedBit:
    """Exact conditionals of two tokens that are one fair bit twice: log-probabilities (B, 2, 2)."""

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        other = tokens.flip(1)
        chances = torch.stack([other == 0, other == 1], dim=-1).double()
        return torch.where((other == 2)[..., None], 0.5, chances).log()

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


class Independent:
    """Every token has these probabilities whatever the others are, so only the walk itself matters."""

    def __init__(self, *chances: float) -> None:
        self.logits = torch.tensor(chances, dtype=torch.float64).log()

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


class Labelled:
    """The class of a sequence is all its tokens, for certain."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None and len(condition) == len(tokens) == len(time)
        return condition[:, None, None].expand(*tokens.shape, 1)

    def head(self, hidden: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(hidden.squeeze(-1), self.vocabulary).double().log()


class Tempered(Tabular):
    """A table whose logits grow with time, so that it matters which time it is told."""

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return super().forward(tokens, time, condition) * (0.5 + 2 * time[:, None, None])


class Mixing:
    """Random weights, for sequences of any length up to 8; everything depends on all that a network may look at.

    Keeps the times that it is told, call by call.
    """

    def __init__(self, vocabulary: int, causal: bool) -> None:
        random = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(vocabulary + 1, 4, generator=random, dtype=torch.float64)
        self.places = torch.randn(8, 4, generator=random, dtype=torch.float64)
        self.output = torch.randn(4, vocabulary, generator=random, dtype=torch.float64)
        self.causal = causal
        self.times: list[Tensor] = []

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        self.times.append(time)
        x = self.embedding[tokens] * self.places[: tokens.shape[1]]
        past = x.cumsum(dim=1)
        return (past if self.causal else past + x.sum(dim=1, keepdim=True)) + time[:, None, None]

    def head(self, hidden: Tensor) -> Tensor:
        return torch.tanh(hidden) @ self.output


class Counted:
    """Another denoiser, and the rows that its trunk and its head were called on, call by call."""

    def __init__(self, denoiser) -> None:
        self.denoiser = denoiser
        self.trunk_rows: list[int] = []
        self.head_rows: list[int] = []

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        self.trunk_rows.append(len(tokens))
        return self.denoiser(tokens, time, condition)

    def head(self, hidden: Tensor) -> Tensor:
        self.head_rows.append(hidden.shape[:-1].numel())
        return self.denoiser.head(hidden)


def masks(batch: int, length: int, vocabulary: int = 2) -> Tensor:
    return torch.full((batch, length), vocabulary)
