"""Two-stage ancestral sampling (App. G, Alg. 3, "mean"): first what a token would be, then whether it shows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.samplers.walk import PaperSampler
from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class TwoStage(PaperSampler[Schedule]):
    """At every masked position x_0 ~ mu(x_t, t), revealed with probability (alpha(s) - alpha(t)) / (1 - alpha(t)).

    The distribution is that of Algorithm 2. In float32 it is not: there the share makes rare tokens rarer still, and
    Gumbel noise then loses them.
    """

    def fill(
        self,
        conditionals: Conditionals,
        schedule: Schedule,
        tokens: Tensor,
        noise: Noise,
        examples: Tensor,
        on_step: OnStep,
    ) -> Tensor:
        """Steps 1, 2, ... draw from the noise's steps 1, 2, ..."""
        walk, length = self.walk(schedule), tokens.shape[1]
        for done, step in enumerate(walk, start=1):
            uniforms = noise.uniform(done, examples, 2 * length)
            hidden = conditionals.hidden(tokens, step.time)
            is_mode = self.takes_mode(step)
            drawn = conditionals.mode(hidden) if is_mode else conditionals.draw(hidden, uniforms[:, :length])
            shown = (tokens == conditionals.mask) & (uniforms[:, length:] < step.share)
            tokens = torch.where(shown, drawn, tokens)
            on_step(done, len(walk), tokens)
        return tokens
