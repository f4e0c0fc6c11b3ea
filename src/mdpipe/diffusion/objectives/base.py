"""The interface that training and evaluation use of an objective.

Shapes: B batch, L length, K uniforms per example, N masked positions of a batch, V vocabulary; the mask's index is V.
Everything is in nats per example.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.registry import Configurable


@dataclass(frozen=True)
class ELBO:
    """An estimate of the negative ELBO, an upper bound on -log p(x), in its three parts, each (B,) float64."""

    reconstruction: Tensor
    """Cost of the tokens that are already masked at the first time."""
    prior: Tensor
    """Cost of the tokens that are still unmasked at time 1."""
    diffusion: Tensor
    """The integrand, or T times one term of the sum, at the sampled time and mask; its mean is the integral or the sum.

    Objectives without time put their whole cost here.
    """

    @property
    def total(self) -> Tensor:
        """Return the sum of the parts, (B,)."""
        return self.reconstruction + self.prior + self.diffusion


class Objective(Configurable, nn.Module, ABC):
    """A loss that trains a denoiser, and a bound that evaluates it.

    An objective that learns something itself, as GenMD4 learns its schedule, has parameters.

    Args:
        config: Its settings.
        vocab_size: V.
    """

    estimator: str
    """Name of the bound in tables."""
    is_exact: ClassVar[bool] = False
    """True if `elbo` is -log p(x) itself, the same for all times and uniforms."""
    learning_rate: float | None = None
    """Peak learning rate of the objective's parameters; None for the network's."""
    num_mask_samples: int = 1
    """Masks, all at the same time, that the loss of an example is averaged over."""

    def __init__(self, config: ObjectiveConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = self.mask_id = vocab_size

    @property
    def is_causal(self) -> bool:
        """Return True if the denoiser must be causal: its output at a position depends on the tokens up to there."""
        return self.config.is_causal

    def extra_metrics(self) -> dict[str, float]:
        """Return what the objective has learned so far, for the training log."""
        return {}

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return the training loss (B,), by default the bound. It may be another function of the denoiser's output.

        The value is logged during training. The gradient, in the denoiser's and in the objective's own parameters, is
        an unbiased estimate of the gradient of the expected loss.

        Args:
            model: The denoiser.
            x0: (B, L) int64 below V.
            t: (B,) float64, uniform on [0, 1), evenly spread over the batch. An objective with another distribution of
                the time takes its inverse of t, which keeps the strata.
            u: (B, num_mask_samples * L) float64 in [0, 1).
            class_labels: (B,) or None, passed to the denoiser.
        """
        return self.checked_elbo(model, x0, t, u, class_labels).total

    def checked_elbo(
        self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None
    ) -> ELBO:
        """Return `elbo` of these arguments, after a check that it is one number per example.

        Raises:
            ValueError: It is not an `ELBO`, or its parts are not (B,).
        """
        elbo = self.elbo(model, x0, t, u, class_labels)
        if not isinstance(elbo, ELBO):
            problem = f"`elbo` of objective.kind = {self.config.kind} returns {type(elbo).__name__}, not an ELBO"
            raise ValueError(problem)  # noqa: TRY004 (reported in one line)
        for name, part in vars(elbo).items():
            self.require_one_per_example(f"{name} of `elbo`", part, len(x0))
        return elbo

    def require_one_per_example(self, name: str, value: Tensor, batch_size: int) -> None:
        """Require a shape of (B,), since other shapes would be averaged or broadcast without an error.

        Raises:
            ValueError: The value called `name` is not a tensor, or has another shape.
        """
        shape = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
        if shape != (batch_size,):
            raise ValueError(
                f"{name} of objective.kind = {self.config.kind} is {shape}, not ({batch_size},), a number of nats for"
                " each example"
            )

    @abstractmethod
    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one Monte Carlo sample, whose mean over times and uniforms is an upper bound on -log p(x).

        Args:
            model: The denoiser.
            x0: (B, L) int64 below V.
            t: (B,) float64, uniform on [0, 1).
            u: (B, L) float64 in [0, 1).
            class_labels: (B,) or None, passed to the denoiser.
        """

    def token_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N,) of predicting target (N,) from logits (N, V): the cross entropy -log mu[target].

        Subclasses may take more arguments, each (N,). It is compiled as a whole, so conversions belong inside.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(logits, target, reduction="none")
