"""Ancestral sampling that decides first when each token is revealed, then computes nothing but those tokens.

The probability that a masked token is revealed in a step does not depend on the network, so the steps of all tokens
can be drawn beforehand. What then has to be computed is known from the start: the trunk for rows that reveal
something, the head for the tokens revealed. The distribution is that of Algorithm 2, exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.samplers.walk import PaperSampler, Step
from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class RevealFirst(PaperSampler[Schedule]):
    """A token masked at time 1 is visible at s with probability (alpha(s) - alpha(1)) / (1 - alpha(1)).

    One uniform a token, looked up among these, says in which step it is revealed. A step that reveals nothing calls
    nothing. After the plan is made, a step on an accelerator waits for no result of another.
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
        """All from step 0 of the noise: a uniform for the time of each token, and one for the token."""
        walk, length = self.walk(schedule), tokens.shape[1]
        when, what = noise.uniform(0, examples, 2 * length).chunk(2, dim=1)
        plan = Plan.draw(tokens == conditionals.mask, when, walk)
        uniforms = what.flatten().index_select(0, plan.places)
        for done, step in enumerate(walk, start=1):
            revealed, involved = plan.revealed[done - 1], plan.involved[done - 1]
            if revealed.start < revealed.stop:
                rows = plan.rows[involved]
                hidden = conditionals.of_rows(rows).hidden(tokens.index_select(0, rows), step.time)
                states = hidden.flatten(0, 1).index_select(0, plan.states[revealed])
                is_mode = self.takes_mode(step)
                drawn = conditionals.mode(states) if is_mode else conditionals.draw(states, uniforms[revealed])
                tokens = tokens.flatten().index_copy(0, plan.places[revealed], drawn).view_as(tokens)
            on_step(done, len(walk), tokens)
        return tokens


@dataclass(frozen=True)
class Plan:
    """Which tokens are revealed in which step, N in all, and in which rows, one entry a (step, row): R in all."""

    places: Tensor
    """(N,) indices into the flattened (B, L) tokens, step after step and in order within a step."""
    states: Tensor
    """(N,) the same indices counted in the rows of its step alone."""
    rows: Tensor
    """(R,) indices of rows, step after step."""
    revealed: list[slice]
    """For each step, its part of the N."""
    involved: list[slice]
    """For each step, its part of the R."""

    @classmethod
    def draw(cls, masked: Tensor, uniforms: Tensor, walk: list[Step]) -> "Plan":
        """The plan for masked positions (B, L) and as many uniforms."""
        batch, length = masked.shape
        start = walk[0].alpha_t
        visible = torch.tensor([(step.alpha_s - start) / (1 - start) for step in walk], dtype=torch.float64)
        steps = torch.searchsorted(visible.to(uniforms.device), uniforms.contiguous(), right=True).flatten()
        places = masked.flatten().nonzero().squeeze(1)
        ordered, order = steps[places].sort(stable=True)
        places = places[order]
        pairs, pair = torch.unique_consecutive(ordered * batch + places // length, return_inverse=True)
        pair_steps, rows = pairs // batch, pairs % batch
        involved = _slices(pair_steps, len(walk))
        first = torch.tensor([part.start for part in involved], device=places.device)
        states = (pair - first[ordered]) * length + places % length
        return cls(places, states, rows, _slices(ordered, len(walk)), involved)


def _slices(steps: Tensor, count: int) -> list[slice]:
    """Where each of `count` steps lies in a sorted tensor of steps."""
    ends = steps.bincount(minlength=count).cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
