"""Ancestral sampling: Algorithm 2 as written, and faster samplers of the same distribution.

Shapes: B batch, L length, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel, sample_categorical
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, PaperSampler, Start, TimeStep
from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.params.sampling import AncestralConfig, AncestralStepwiseConfig, GenMD4AncestralConfig, TwoStageConfig


class AncestralStepwise(PaperSampler, config=AncestralStepwiseConfig):
    r"""Algorithm 2 as written, in float64: the reference for all other samplers.

    From t to s, each masked token is sampled from a distribution over the vocabulary and the mask,

    (alpha(s) - alpha(t)) / (1 - alpha(t)) mu(x_t, t)  +  (1 - alpha(s)) / (1 - alpha(t)) mask

    The probabilities of a token are computed at all steps, but it is unmasked at only one of them.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        if self.takes_mode(step):
            return torch.where(x_t == model.mask_id, model.mode(model.hidden(x_t, step.t)), x_t)
        (u,) = start.uniform(step.index)
        return unmask(model, x_t, step.t, step.unmask_prob, u)


def unmask(model: ConditionalModel, x_t: Tensor, t: float, unmask_prob: float | Tensor, u: Tensor) -> Tensor:
    """Replace each mask by token i with probability unmask_prob_i mu_i, and keep it with the remaining probability.

    Args:
        model: Gives mu.
        x_t: (B, L).
        t: The time.
        unmask_prob: Probability in [0, 1], one for all tokens or (V,).
        u: (B, L) uniforms.
    """
    mu = model.probabilities(x_t, t)
    stay_prob = ((1 - unmask_prob) * mu).sum(dim=-1, keepdim=True)
    samples = sample_categorical(torch.cat([unmask_prob * mu, stay_prob], dim=-1), u)
    return torch.where(x_t == model.mask_id, samples, x_t)


class TwoStage(PaperSampler, config=TwoStageConfig):
    """Two-stage sampling (App. G, Alg. 3, "mean"): draw x_0 ~ mu(x_t, t), then decide which tokens to unmask.

    Each masked one is unmasked with probability (alpha(s) - alpha(t)) / (1 - alpha(t)).

    The distribution is the same as in Algorithm 2. In float32 they differ: there the factor makes rare tokens rarer
    still, and Gumbel noise then loses them.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        u_token, u_unmask = start.uniform(step.index, per_token=2)
        hidden = model.hidden(x_t, step.t)
        x0 = model.mode(hidden) if self.takes_mode(step) else model.sample(hidden, u_token)
        return torch.where((x_t == model.mask_id) & (u_unmask < step.unmask_prob), x0, x_t)


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
    """Algorithm 2 with precomputed unmasking steps: the same distribution with less computation.

    That step does not depend on the network: a token masked at time 1 is unmasked at s with probability
    (alpha(s) - alpha(1)) / (1 - alpha(1)). The necessary computation is thus known from the start: the network's body
    for rows that unmask something, its head for the tokens that are unmasked.

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


@dataclass(frozen=True)
class PerTokenStep:
    """A step from t to s < t, with the probability (V,) that each token is unmasked, or one () for all."""

    index: int
    t: float
    unmask_prob: Tensor


class GenMD4Ancestral(DiscreteTimeSampler, config=GenMD4AncestralConfig):
    r"""GenMD4's ancestral sampling: each token of the vocabulary has its own schedule (Sec. 6).

    From t to s a masked token becomes i with probability (alpha_i(s) - alpha_i(t)) / (1 - alpha_i(t)) mu_i. It stays
    masked with the remaining probability, sum_i (1 - alpha_i(s)) / (1 - alpha_i(t)) mu_i. The time at which a token is
    unmasked thus depends on the network's prediction, and cannot be precomputed. Equal schedules give Algorithm 2.
    """

    def plan(self, schedule: Any, start: Start) -> list[PerTokenStep]:
        """Return the steps through the grid, and one more at time 0 if a token may still be masked there.

        The schedule's alpha(t) is (..., V), or (...) if it is the same for all tokens of the vocabulary.
        """
        times = self.times
        alphas = [*schedule.alpha(times.to(start.tokens.device)).to(torch.float64)]
        if (alphas[-1] < 1).any():
            alphas.append(torch.ones_like(alphas[-1]))
        steps = []
        for index, (t, alpha_t, alpha_s) in enumerate(zip(times.tolist(), alphas, alphas[1:], strict=False), start=1):
            # Where alpha(t) rounds to 1, the token is unmasked with certainty.
            unmask_prob = ((alpha_s - alpha_t) / (1 - alpha_t)).where(alpha_t < 1, 1.0)
            steps.append(PerTokenStep(index, t, unmask_prob))
        return steps

    def step(self, model: ConditionalModel, x_t: Tensor, step: PerTokenStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        (u,) = start.uniform(step.index)
        return unmask(model, x_t, step.t, step.unmask_prob, u)
