"""MD4: the bound of masked diffusion, an integral of weighted cross entropies at masked positions.

Letters: B examples, L positions, V vocabulary; the mask's index is V. Everything is in nats per example.
"""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Bound
from mdpipe.diffusion.objectives.masked import masked_costs
from mdpipe.diffusion.objectives.scheduled import Scheduled
from mdpipe.diffusion.objectives.steps import Steps
from mdpipe.diffusion.schedules.base import Schedule


class MD4(Scheduled):
    r"""The bound for a masking schedule and a vocabulary, in continuous time (eq. 5) or in T steps (eq. 2).

    diffusion = -alpha'(t) / (1 - alpha(t)) * sum over masked n of -log mu^n(x_t, t)[x_0^n]

    or, in steps, T (alpha(s) - alpha(t)) / (1 - alpha(t)) times the same sum, for one of the T steps from t to s. The
    steps go down to time 0, so both forms have the same end terms. The finite bound is a right Riemann sum of the
    integral: it lies above it, and falls to it as steps are divided.

    Args:
        schedule: gives alpha.
        vocabulary: V.
        timesteps: T, or None for continuous time.
        grid: the spacing of the steps.
        masks: mask draws, at one time, that the loss of an example is the mean of; GenMD4 always takes two.

    Raises:
        ValueError: fewer than one step or mask, or a grid that does not exist.
    """

    def __init__(
        self,
        schedule: Schedule,
        vocabulary: int,
        *,
        timesteps: int | None = None,
        grid: str = "uniform",
        masks: int = 1,
    ) -> None:
        super().__init__(schedule, vocabulary)
        if masks < 1:
            raise ValueError(f"diffusion.masks must be at least 1, not {masks}")
        self.steps = None if timesteps is None else Steps(timesteps, grid)
        self.masks = masks

    @property
    def estimator(self) -> str:
        """The bound, with its number of steps where that is finite."""
        return "md4 bound" if self.steps is None else f"md4 bound, T = {self.steps.count}"

    def loss_uniforms(self, length: int) -> int:
        """One a token and mask."""
        return self.masks * length

    def loss(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """The mean of the bound over `masks` draws at the same time."""
        draws = uniforms.chunk(self.masks, dim=1)
        return torch.stack([self.bound(denoiser, tokens, time, draw, condition).total for draw in draws]).mean(dim=0)

    def bound(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Bound:
        """One draw of the bound."""
        weight, entropies = self.weighed(denoiser, tokens, time, uniforms, condition)
        return self.with_ends(weight * entropies, tokens.shape[1])

    def weighed(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The weight (B,) and the sum of the masked tokens' cross entropies (B,); in steps, at the end of a step."""
        if self.steps is None:
            weight = self.schedule.weight(time)
        else:
            start, time = self.steps.drawn(time)
            masked = self.schedule.masked(time)
            weight = self.steps.count * (masked - self.schedule.masked(start)) / masked
        corrupted = self.corrupt(tokens, time, uniforms)
        return weight, masked_costs(denoiser, corrupted, self.mask, time, condition, self.costs, tokens)
