"""Ancestral sampling that first decides at which step each token is unmasked, then computes only those tokens.

The probability that a masked token is unmasked in a step does not depend on the network, so the steps of all tokens can
be drawn beforehand. The necessary computation is then known from the start: the network's body for rows that unmask
something, its head for the tokens that are unmasked. The distribution is exactly that of Algorithm 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.base import PaperSampler, Start, TimeStep
from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.params.sampling import AncestralConfig


@dataclass(frozen=True)
class UnmaskingStep(TimeStep):
    """A step with the N tokens that it unmasks, in R rows."""

    active_rows: Tensor
    """(R,) indices of the rows in which something is unmasked."""
    positions: Tensor
    """(N,) indices into the flattened x_t (B, L)."""
    active_positions: Tensor
    """(N,) the same positions as indices into the flattened active rows (R, L)."""
    u: Tensor
    """(N,) uniforms that decide the tokens."""


class Ancestral(PaperSampler, config=AncestralConfig):
    """A token masked at time 1 is unmasked at s with probability (alpha(s) - alpha(1)) / (1 - alpha(1)).

    One uniform per token, looked up among these, determines the step in which it is unmasked. A step that unmasks
    nothing calls no network. After the plan is made, a step on a GPU waits for no result of another.
    """

    def plan(self, schedule: Schedule, start: Start) -> list[UnmaskingStep]:
        """Return the steps; step 0 of the random source gives all uniforms, two per token: its step and value.

        Shapes: N tokens to unmask, R pairs of a step and a row in which it unmasks something; both sorted by step.
        """
        u_step, u_token = start.uniform(0, per_token=2)
        length, batch = start.tokens.shape[1], len(start.tokens)
        steps = self.time_steps(schedule)
        positions_N = start.is_masked.flatten().nonzero().squeeze(1)
        step_N, order = _draw_steps(steps, u_step).flatten()[positions_N].sort(stable=True)
        positions_N = positions_N[order]
        pairs_R, pair_N = torch.unique_consecutive(step_N * batch + positions_N // length, return_inverse=True)
        step_R, rows_R = pairs_R // batch, pairs_R % batch
        tokens_per_step, rows_per_step = (x.bincount(minlength=len(steps)) for x in (step_N, step_R))
        first_pair = rows_per_step.cumsum(0) - rows_per_step
        active_N = (pair_N - first_pair[step_N]) * length + positions_N % length
        u_N = u_token.flatten().index_select(0, positions_N)
        per_token = zip(*(x.split(tokens_per_step.tolist()) for x in (positions_N, active_N, u_N)), strict=True)
        return [
            UnmaskingStep(**vars(step), active_rows=rows, positions=positions, active_positions=active, u=u)
            for step, rows, (positions, active, u) in zip(
                steps, rows_R.split(rows_per_step.tolist()), per_token, strict=True
            )
        ]

    def step(self, model: ConditionalModel, x_t: Tensor, step: UnmaskingStep, start: Start) -> Tensor:  # noqa: ARG002
        """Return x_s."""
        if len(step.positions) == 0:
            return x_t
        model = model.select_rows(step.active_rows)
        hidden = model.hidden(x_t.index_select(0, step.active_rows), step.t)
        states = hidden.flatten(0, 1).index_select(0, step.active_positions)
        samples = model.mode(states) if self.takes_mode(step) else model.sample(states, step.u)
        return x_t.flatten().index_copy(0, step.positions, samples).view_as(x_t)


def _draw_steps(steps: list[TimeStep], u: Tensor) -> Tensor:
    """Return for each uniform the index in `steps` at which its token is unmasked."""
    alpha_1 = steps[0].alpha_t
    unmasked = torch.tensor([(step.alpha_s - alpha_1) / (1 - alpha_1) for step in steps], dtype=torch.float64)
    return torch.searchsorted(unmasked.to(u.device), u.contiguous(), right=True)
