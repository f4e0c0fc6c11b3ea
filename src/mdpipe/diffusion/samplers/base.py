"""What a sampler is: a way to turn masks into tokens, with a denoiser, without touching the tokens that are given.

Letters: B examples, L positions, V vocabulary; the mask's index is V.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from mdpipe.diffusion.choice import Choice
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.conditionals import Conditionals

AnySchedule = TypeVar("AnySchedule", contravariant=True)
"""The schedule that a sampler needs: a scalar one, or for GenMD4 a vector over the vocabulary."""

OnStep = Callable[[int, int, Tensor], None]
"""Told the number of steps done, of steps in all, and the tokens (B, L), which are never written to afterwards."""

PLAIN = Choice()


@dataclass(frozen=True)
class Sampler(ABC, Generic[AnySchedule]):
    """Fills the masked positions of token sequences; its fields are its settings in params.yaml.

    Any subset of the positions may be given, none or a prompt or the surroundings of a gap, and stays as it is.
    A sample is a function of the noise and its example's index, not of the batch that it is drawn in.
    """

    causal: ClassVar[bool] = False
    """Whether the denoiser must be causal."""

    @torch.inference_mode()
    def __call__(
        self,
        denoiser: Denoiser,
        schedule: AnySchedule,
        vocabulary: int,
        tokens: Tensor,
        noise: Noise,
        examples: Tensor,
        *,
        condition: Tensor | None = None,
        choice: Choice = PLAIN,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Fill `tokens`, which are left as they are; the samples are a tensor of their own.

        Args:
            denoiser: the model.
            schedule: the masking schedule that the sampler undoes.
            vocabulary: V, which is the index of the mask too.
            tokens: (B, L) int64, V where unknown.
            noise: the source of all randomness, for this call alone.
            examples: (B,) int64, global indices of the samples.
            condition: (B,) class labels for the denoiser, or None.
            choice: how a token is chosen from its logits.
            on_step: called after each step.

        Returns:
            (B, L) int64 below V.
        """
        conditionals = Conditionals(denoiser, vocabulary, condition, choice)
        return self.fill(conditionals, schedule, tokens.clone(), noise, examples, on_step or _tell_nobody)

    @abstractmethod
    def fill(
        self,
        conditionals: Conditionals,
        schedule: AnySchedule,
        tokens: Tensor,
        noise: Noise,
        examples: Tensor,
        on_step: OnStep,
    ) -> Tensor:
        """The sampler's algorithm; the arguments are those of the call, the model's being in `conditionals`."""


def _tell_nobody(done: int, steps: int, tokens: Tensor) -> None:
    pass
