"""The loop that all samplers share, the times that most of them step through, and sequences longer than the network.

Shapes: B batch, L length, V vocabulary; the mask's index is V.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel, Denoiser, TokenSampler
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.schedules.base import TIME_GRIDS, Schedule
from mdpipe.params.registry import Configurable
from mdpipe.params.sampling import SamplerConfig

ScheduleT = TypeVar("ScheduleT", contravariant=True)
"""The schedule that a sampler needs: a scalar one, or for GenMD4 one per token of the vocabulary."""

OnStep = Callable[[int, int, Tensor], None]
"""Called with the number of steps done, the number of all steps, and x_t (B, L), which is never modified afterwards."""

DEFAULT = TokenSampler()


@dataclass(frozen=True)
class Start:
    """The tokens that a sampler starts from, and its randomness."""

    tokens: Tensor
    """(B, L) int64, the mask's index where unknown."""
    mask_id: int
    rng: CounterRNG
    """The source of all randomness, for this call only."""
    examples: Tensor
    """(B,) int64, global indices of the samples."""

    @property
    def is_masked(self) -> Tensor:
        """Return the positions (B, L) that are to be sampled; the others stay as they are."""
        return self.tokens == self.mask_id

    def uniform(self, step: int, per_token: int = 1) -> tuple[Tensor, ...]:
        """Return `per_token` tensors (B, L) of uniforms in [0, 1)."""
        return self.rng.uniform(step, self.examples, per_token * self.tokens.shape[1]).chunk(per_token, dim=1)


class Sampler(Configurable, ABC, Generic[ScheduleT]):
    """Samples the masked positions of token sequences.

    Any subset of the positions may be given (none, a prompt, the text around a gap), and stays as it is.
    A sample is a function of the random source and its example's index, not of the batch that it is in.

    Args:
        config: Its settings; by default those of its kind.
    """

    is_causal: ClassVar[bool] = False
    """True if the denoiser must be causal."""

    def __init__(self, config: SamplerConfig | None = None) -> None:
        self.config: Any = type(self).config_class.model_validate({}) if config is None else config

    @torch.inference_mode()
    def __call__(
        self,
        denoiser: Denoiser,
        schedule: ScheduleT,
        vocab_size: int,
        tokens: Tensor,
        rng: CounterRNG,
        examples: Tensor,
        *,
        class_labels: Tensor | None = None,
        token_sampler: TokenSampler = DEFAULT,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sample the masked positions of `tokens`; the result is a new tensor.

        Args:
            denoiser: The model.
            schedule: The masking schedule that the sampler reverses.
            vocab_size: V, which is also the index of the mask.
            tokens: (B, L) int64, V where unknown.
            rng: The source of all randomness, for this call only.
            examples: (B,) int64, global indices of the samples.
            class_labels: (B,) for the denoiser, or None.
            token_sampler: Temperature, top-k and top-p.
            on_step: Called after each step.

        Returns:
            (B, L) int64 below V.
        """
        model = ConditionalModel(denoiser, vocab_size, class_labels, token_sampler)
        start = Start(tokens, vocab_size, rng, examples)
        steps = self.plan(schedule, start)
        x_t = tokens.clone()
        for done, step in enumerate(steps, start=1):
            x_t = self.step(model, x_t, step, start)
            if on_step is not None:
                on_step(done, len(steps), x_t)
        return x_t

    @abstractmethod
    def plan(self, schedule: ScheduleT, start: Start) -> Sequence[Any]:
        """Return the steps, after which nothing is masked, in the form that `step` takes. No network runs here."""

    @abstractmethod
    def step(self, model: ConditionalModel, x_t: Tensor, step: Any, start: Start) -> Tensor:
        """Return the tokens (B, L) after one step from x_t (B, L), which is not modified."""


@dataclass(frozen=True)
class TimeStep:
    """A step from t to s < t, or the last one, after which nothing is masked: alpha(s) = 1, also from time 0."""

    index: int
    """1, 2, ...; the step of the random source."""
    t: float
    alpha_t: float
    alpha_s: float

    @property
    def unmask_prob(self) -> float:
        """Return the probability (alpha(s) - alpha(t)) / (1 - alpha(t)) that a masked token is unmasked.

        It is 1 where alpha(t) rounds to 1.
        """
        return (self.alpha_s - self.alpha_t) / (1 - self.alpha_t) if self.alpha_t < 1 else 1.0


class DiscreteTimeSampler(Sampler[Any]):
    """A sampler that steps through a grid of times from 1 to 0."""

    @property
    def times(self) -> Tensor:
        """Return the times (steps + 1,) float64, falling from 1 to 0."""
        return TIME_GRIDS[self.config.time_grid](self.config.steps).flip(0)

    def time_steps(self, schedule: Schedule) -> list[TimeStep]:
        """Return the steps through the grid, and one more at time 0 for the tokens that are still masked there.

        A schedule with alpha(0) = 1 needs no such step.
        """
        times = self.times
        alphas = [*schedule.alpha(times).tolist(), 1.0]
        ends = zip(times.tolist(), alphas[:-1], alphas[1:], strict=True)
        steps = [TimeStep(index, *step) for index, step in enumerate(ends, start=1)]
        return steps if alphas[-2] < 1 else steps[:-1]

    def plan(self, schedule: Any, start: Start) -> Sequence[Any]:  # noqa: ARG002
        """Return the time steps."""
        return self.time_steps(schedule)


class PaperSampler(DiscreteTimeSampler):
    """A sampler of the paper, which treats the tokens that are still masked at time 0 in one of two ways.

    `decode: sample` draws them like all others. The samples then have exactly the distribution of the reverse process.
    `decode: argmax` takes the most probable token for each, as the official implementation does after the last step of
    all samplers of MD4. With the schedules' epsilon of 1e-4 that is one token in 10,000: 0.1 of a sequence of 1024.
    """

    def takes_mode(self, step: TimeStep) -> bool:
        """Return True if masked tokens become the most probable ones in this step: the additional one at time 0."""
        return step.t == 0 and self.config.decode == "argmax"


def sample_sliding_window(
    sample: Callable[[Tensor, CounterRNG], Tensor],
    tokens: Tensor,
    rng: CounterRNG,
    *,
    window: int,
    overlap: int,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample the masked positions of tokens (B, N) of any length N, window by window from left to right.

    Each window is given the last `overlap` tokens of the one before. Every window is full, so the last one of a long
    sequence starts early enough to end with it, and is given more. Each has its own stream of random numbers.

    Args:
        sample: Samples one window (B, L): a sampler with all other arguments bound.
        tokens: Known tokens and masks (B, N), as for a sampler.
        rng: Random numbers, as for a sampler.
        window: Tokens that the network takes.
        overlap: Tokens of a window that it shares with the one before, fewer than the window has.
        on_step: Called after each window.
    """
    last = max(0, tokens.shape[1] - window)
    starts = [*range(0, last, window - overlap), last]
    tokens = tokens.clone()
    for done, start in enumerate(starts, start=1):
        block = slice(start, start + window)
        tokens[:, block] = sample(tokens[:, block], rng.child(f"window {done}"))
        if on_step is not None:
            on_step(done, len(starts), tokens.clone())
    return tokens
