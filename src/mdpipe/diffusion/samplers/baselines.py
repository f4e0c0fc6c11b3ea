"""Samplers that the paper's are compared with: MaskGIT, correctors, first hitting, and autoregressive sampling.

Shapes: B batch, L length, R rows of the batch.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel, sample_categorical
from mdpipe.diffusion.samplers.ancestral import unmask
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, Sampler, Start, TimeStep
from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.params.sampling import (
    AutoregressiveSamplerConfig,
    FirstHittingConfig,
    MaskGITSamplerConfig,
    PredictorCorrectorConfig,
    ReMDMConfig,
)

MIN_UNIFORM = 2.0**-54
"""Replaces a uniform of exactly 0, whose Gumbel number would be infinite."""


class MaskGIT(DiscreteTimeSampler, config=MaskGITSamplerConfig):
    """MaskGIT's parallel decoding (Chang et al., 2022).

    Sample all masked tokens at each step; of n, keep all but ceil(n (1 - alpha(s))), the most confident ones.

    A token's confidence is log p of the sampled token plus noise_scale * Gumbel * (fraction of steps that remain): a
    noise_scale of 0 unmasks by confidence only, a large one in random order.
    After the last step nothing is masked. The choice of tokens differs from the reverse process: samples are more
    probable and less varied than the model's distribution.
    """

    def plan(self, schedule: Schedule, start: Start) -> list[TimeStep]:  # noqa: ARG002
        """Return the steps of the grid; the last one leaves nothing for another at time 0."""
        return self.time_steps(schedule)[: self.config.steps]

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        u_token, u_gumbel = start.uniform(step.index, per_token=2)
        p = model.probabilities(x_t, step.t)
        samples = sample_categorical(p, u_token)
        confidence = p.gather(-1, samples[..., None]).squeeze(-1).log()
        confidence += self.config.noise_scale * (1 - step.index / self.config.steps) * gumbel(u_gumbel)
        is_masked = x_t == model.mask_id
        num_unknown = start.is_masked.sum(dim=1, keepdim=True, dtype=torch.float64)
        num_left = torch.ceil(num_unknown * (1 - step.alpha_s)) if step.index < self.config.steps else 0
        order = confidence.where(is_masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(dim=1)
        return torch.where(is_masked & (rank < is_masked.sum(dim=1, keepdim=True) - num_left), samples, x_t)


def gumbel(u: Tensor) -> Tensor:
    """Return standard Gumbel numbers, all finite, for uniforms in [0, 1)."""
    return -(-u.clamp(min=MIN_UNIFORM).log()).log()


class ReMDM(DiscreteTimeSampler, config=ReMDMConfig):
    """Sampler that masks tokens again. In a step from t to s, with sigma = eta min(1, (1 - alpha(s)) / alpha(t)),

    an unmasked token that was not given is masked with probability sigma, and
    a masked one is unmasked with probability (alpha(s) - (1 - sigma) alpha(t)) / (1 - alpha(t)).

    More tokens are unmasked to compensate for those masked: a token is unmasked at s with probability alpha(s) for all
    eta. With eta = 0 this is ancestral sampling. The last step masks nothing.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        eta = self.config.eta
        (u,) = start.uniform(step.index)
        # alpha(t) is 0 at time 1 of a schedule without epsilon, where nothing is unmasked.
        sigma = eta * min(1.0, (1 - step.alpha_s) / step.alpha_t) if step.alpha_t > 0 else eta
        # alpha(t) may round to 1, as in `TimeStep.unmask_prob`.
        unmask_prob = (step.alpha_s - (1 - sigma) * step.alpha_t) / (1 - step.alpha_t) if step.alpha_t < 1 else 1.0
        is_masked_again = (x_t != model.mask_id) & start.is_masked & (u < sigma)
        return torch.where(is_masked_again, model.mask_id, unmask(model, x_t, step.t, unmask_prob, u))


class PredictorCorrector(DiscreteTimeSampler, config=PredictorCorrectorConfig):
    """An ancestral step from t to s, then corrector steps: forward from s to t, and an ancestral step back to s.

    Forward, an unmasked token that was not given is masked with probability 1 - alpha(t) / alpha(s). A round goes back
    exactly as far as the step came: as many tokens as the step sampled at once are resampled, given other tokens, and
    the denoiser sees only times on the grid. The mask probability at s is unchanged. With exact conditionals and small
    steps so is the distribution at s, up to the error of sampling several tokens at once.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; network call i draws from step i of the random source."""
        calls_per_step = 1 + self.config.num_corrector_steps
        for call in range(calls_per_step):
            u_unmask, u_mask = start.uniform((step.index - 1) * calls_per_step + call + 1, per_token=2)
            if call > 0:
                is_masked_again = start.is_masked & (u_mask >= step.alpha_t / step.alpha_s)
                x_t = torch.where(is_masked_again, model.mask_id, x_t)
            x_t = unmask(model, x_t, step.t, step.unmask_prob, u_unmask)
        return x_t


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
    """First-hitting sampling (Zheng et al., 2024): one token per row and network call, when it is unmasked.

    There are as many calls as masks in a row.

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


@dataclass(frozen=True)
class NextToken:
    """A position, and the uniforms (B,) that decide its tokens."""

    position: int
    u: Tensor


class Autoregressive(Sampler[object], config=AutoregressiveSamplerConfig):
    """x^l ~ p(x^l | x^1, ..., x^(l-1)), with one network call per token, each on the tokens so far only.

    The network reads the sequence shifted right by one, with the mask as the start token, so its hidden state at
    position l predicts token l. The schedule is not used, and the time is 0.

    Raises:
        ValueError: A token is given to the right of a mask, which could not depend on it.
    """

    is_causal: ClassVar[bool] = True

    def plan(self, schedule: object, start: Start) -> list[NextToken]:  # noqa: ARG002
        """Return the positions from the first that is unknown in any row; step 0 of the source has all uniforms."""
        is_masked, length = start.is_masked, start.tokens.shape[1]
        if (is_masked[:, :-1] & ~is_masked[:, 1:]).any():
            raise ValueError(
                "the autoregressive sampler cannot fill a gap: tokens may be given at the"
                " beginning of a sequence only, not to the right of an unknown one"
            )
        first = length - int(is_masked.sum(dim=1).max()) if len(is_masked) else length
        (u,) = start.uniform(0)
        return [NextToken(position, u[:, position]) for position in range(first, length)]

    def step(self, model: ConditionalModel, x_t: Tensor, step: NextToken, start: Start) -> Tensor:
        """Return x_t with the next token where it is unknown."""
        begin = torch.full_like(x_t[:, :1], model.mask_id)
        hidden = model.hidden(torch.cat([begin, x_t[:, : step.position]], dim=1), 0.0)
        samples = model.sample(hidden[:, step.position], step.u)
        x_t = x_t.clone()
        x_t[:, step.position] = torch.where(start.is_masked[:, step.position], samples, x_t[:, step.position])
        return x_t
