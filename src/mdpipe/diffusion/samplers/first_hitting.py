"""First-hitting sampling (Zheng et al., 2024): infinitely many steps, of which only those that reveal are made."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import OnStep, Sampler
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class FirstHitting(Sampler[Schedule]):
    """One token a call, each row at the time at which its next token is revealed: as many calls as masks in a row.

    The masked share 1 - alpha at a token's reveal is uniform on [0, 1 - alpha(1)], independently for each token, so
    the shares of a row, sorted, are the order statistics of uniforms, and they come in a random order of positions.
    No two tokens of a row are ever drawn at once, so with exact conditionals the samples are exact. A token whose
    share falls below 1 - alpha(0) is drawn at time 0, still alone.
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
        """All from step 0 of the noise: a uniform for the share of each token, and one for the token."""
        masked = tokens == conditionals.mask
        when, what = noise.uniform(0, examples, 2 * tokens.shape[1]).chunk(2, dim=1)
        # Rows of many masks come first, so the rows still at work in a call are the first so many.
        counts, rows = masked.sum(dim=1).sort(descending=True, stable=True)
        masks = counts.tolist()
        calls = max(masks, default=0)
        shares, positions = when.where(masked, -1).sort(dim=1, descending=True)
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=tokens.device)
        alpha_0, alpha_1 = schedule.alpha(ends).unbind()
        times = schedule.inverse(torch.minimum(1 - shares.clamp(min=0) * (1 - alpha_1), alpha_0))
        for done in range(calls):
            active = rows[: sum(count > done for count in masks)]
            position = positions[active, done]
            hidden = conditionals.of_rows(active).hidden(tokens[active], times[active, done])
            states = hidden[torch.arange(len(active), device=active.device), position]
            drawn = conditionals.draw(states, what[active, position])
            tokens = tokens.index_put((active, position), drawn)
            on_step(done + 1, calls, tokens)
        return tokens
