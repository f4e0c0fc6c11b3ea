"""First-hitting sampling (Zheng et al., 2024): continuous time, with network calls only when a token is unmasked."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.base import Sampler, Start
from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.params.sampling import FirstHittingConfig


@dataclass(frozen=True)
class Hit:
    """The next token of each of R rows that still have a masked one."""

    rows: Tensor
    """(R,) indices."""
    positions: Tensor
    """(R,) of the tokens."""
    t: Tensor
    """(R,) times at which they are unmasked."""
    u: Tensor
    """(R,) uniforms that decide the tokens."""


class FirstHitting(Sampler[Schedule], config=FirstHittingConfig):
    """One token per row and network call, at the time at which it is unmasked: as many calls as masks in a row.

    The mask probability 1 - alpha at the time when a token is unmasked is uniform on [0, 1 - alpha(1)], independently
    for each token. The sorted values of a row are thus the order statistics of uniforms, in a random order of
    positions. Two tokens of a row are never sampled at once, so with exact conditionals the samples are exact. A token
    whose value is below 1 - alpha(0) is sampled at time 0, in a separate call.
    """

    def plan(self, schedule: Schedule, start: Start) -> list[Hit]:
        """Return the hits; step 0 of the random source gives all uniforms, two per token: its time and value."""
        u_time, u_token = start.uniform(0, per_token=2)
        # Rows with many masks come first, so the rows that are active in a call are the first ones.
        counts, rows = start.is_masked.sum(dim=1).sort(descending=True, stable=True)
        num_masks = counts.tolist()
        mask_probs, positions = u_time.where(start.is_masked, -1).sort(dim=1, descending=True)
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=start.tokens.device)
        alpha_0, alpha_1 = schedule.alpha(ends).unbind()
        times = schedule.inverse(torch.minimum(1 - mask_probs.clamp(min=0) * (1 - alpha_1), alpha_0))
        hits = []
        for call in range(max(num_masks, default=0)):
            active = rows[: sum(count > call for count in num_masks)]
            position = positions[active, call]
            hits.append(Hit(active, position, times[active, call], u_token[active, position]))
        return hits

    def step(self, model: ConditionalModel, x_t: Tensor, step: Hit, start: Start) -> Tensor:  # noqa: ARG002
        """Return x_t with one more token in each of the rows."""
        hidden = model.select_rows(step.rows).hidden(x_t[step.rows], step.t)
        states = hidden[torch.arange(len(step.rows), device=x_t.device), step.positions]
        return x_t.index_put((step.rows, step.positions), model.sample(states, step.u))
