"""Predictor and corrector: after every ancestral step, rounds of masking and revealing at the same level of noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.ancestral import reveal
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.samplers.walk import GridSampler
from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class PredictorCorrector(GridSampler[Schedule]):
    """An ancestral step from t to s, then `correctors` times: forward from s to t, and an ancestral step back to s.

    Forward, a visible token that was not given is masked with probability 1 - alpha(t) / alpha(s). A round goes back
    exactly as far as the step came: as many tokens as the step drew at once are drawn again among others, and the
    denoiser meets no time that is not on the grid. The masked share at s stays what it was. With exact conditionals
    and small steps so does the distribution at s, up to the error of drawing several tokens at once.

    Raises:
        ValueError: as every sampler on a grid, or a negative number of correctors.
    """

    correctors: int = 1
    """Rounds a step; each is one more network call."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.correctors < 0:
            raise ValueError(f"sample.sampler.correctors must be at least 0, not {self.correctors}")

    def fill(
        self,
        conditionals: Conditionals,
        schedule: Schedule,
        tokens: Tensor,
        noise: Noise,
        examples: Tensor,
        on_step: OnStep,
    ) -> Tensor:
        """Every network call draws from a step of the noise of its own, counted from 1."""
        walk, given, length = self.walk(schedule), tokens != conditionals.mask, tokens.shape[1]
        call = 0
        for done, step in enumerate(walk, start=1):
            for round_ in range(1 + self.correctors):
                call += 1
                back, forth = noise.uniform(call, examples, 2 * length).chunk(2, dim=1)
                if round_ > 0:
                    masked_again = ~given & (forth >= step.alpha_t / step.alpha_s)
                    tokens = torch.where(masked_again, conditionals.mask, tokens)
                tokens = reveal(conditionals, tokens, step.time, step.share, back)
            on_step(done, len(walk), tokens)
        return tokens
