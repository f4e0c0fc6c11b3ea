"""What training and evaluation ask of an objective.

Letters: B examples, L positions, K uniforms an example, V vocabulary; the mask's index is V. Everything is in nats per
example.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser


@dataclass(frozen=True)
class Bound:
    """An estimate of an upper bound on -log p(x), in its parts, each (B,) float64."""

    reconstruction: Tensor
    """Cost of the tokens that are already masked at the first time."""
    prior: Tensor
    """Cost of the tokens that are still visible at time 1."""
    diffusion: Tensor
    """The integrand, or T times a term of the sum, at the drawn time and mask; its mean is the integral or the sum.

    An objective without time has all of its cost in here.
    """

    @property
    def total(self) -> Tensor:
        """The sum of the parts, (B,)."""
        return self.reconstruction + self.prior + self.diffusion


class Objective(nn.Module, ABC):
    """A loss to train a denoiser by and a bound to evaluate it by.

    What an objective learns itself, as GenMD4 its exponents, are its own parameters.
    """

    causal: ClassVar[bool] = False
    """Whether the denoiser must be causal: its output at a position depends on the tokens up to there only."""
    exact: ClassVar[bool] = False
    """Whether `bound` is -log p(x) itself, the same whatever the time and the uniforms."""
    learning_rate: float | None = None
    """Peak learning rate of the objective's own parameters; None for that of the network."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    @property
    def mask(self) -> int:
        """Index of the mask."""
        return self.vocabulary

    @property
    @abstractmethod
    def estimator(self) -> str:
        """What the bound is called in tables."""

    def learned(self) -> str:
        """What it has learned itself so far, in a few words for the log of training."""
        return ""

    def loss_uniforms(self, length: int) -> int:
        """Uniforms an example of so many tokens that `loss` takes: as many as `bound`, if not told otherwise."""
        return self.bound_uniforms(length)

    def bound_uniforms(self, length: int) -> int:
        """Uniforms an example of so many tokens that `bound` takes: one a token, or none where there is no chance."""
        return 0 if self.exact else length

    def costs(self, logits: Tensor, *values: Tensor) -> Tensor:
        """What n hidden tokens cost, (n,), from their logits (n, V) in any precision, and `values`, each (n,)."""
        return self.cost(logits.to(torch.promote_types(logits.dtype, torch.float32)), *values)

    def cost(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """The same of logits in float32 at least: the cross entropy -log mu[x], if not told otherwise."""
        return functional.cross_entropy(logits, tokens, reduction="none")

    def loss(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """What training minimises, (B,): here the bound's own draw.

        Its value is what is reported along training; its gradient, in the denoiser's weights and in the objective's
        own parameters, has the gradient of the expected loss as its mean.

        Args:
            denoiser: the model.
            tokens: (B, L) int64 below V.
            time: (B,) float64, uniform on [0, 1).
            uniforms: (B, loss_uniforms(L)) float64 in [0, 1).
            condition: (B,) or None, handed to the denoiser.
        """
        return self.bound(denoiser, tokens, time, uniforms, condition).total

    @abstractmethod
    def bound(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Bound:
        """One draw whose mean over times and uniforms is an upper bound on -log p(x).

        Args:
            denoiser: the model.
            tokens: (B, L) int64 below V.
            time: (B,) float64, uniform on [0, 1).
            uniforms: (B, bound_uniforms(L)) float64 in [0, 1).
            condition: (B,) or None, handed to the denoiser.
        """
