"""MD4: the evidence bound of masked diffusion, an integral of weighted cross entropies at masked positions.

The head and the softmax run at the N masked positions only, and on a bounded number of them at a time: no tensor over
all positions, or all masked ones, and the vocabulary is ever made. With several chunks, each recomputes its logits in
the backward pass, which adds a third to the head's work and keeps the gradient exact with the losses' weights in it.
(torch's `linear_cross_entropy`, from 2.13 on, fuses this for a linear head and a cross entropy; the objectives here
need other functions of the logits too, and torch 2.11 does not have it.)

Shapes: B batch, L length, N masked positions of a batch, D width, V vocabulary; the mask's index is V. Everything is in
nats per example.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.schedules.base import DiscreteTime, Schedule, TimeDistribution
from mdpipe.params.diffusion import (
    CountedLossConfig,
    MD4Config,
    ScheduledConfig,
    UniformTimesConfig,
    WeightedLossConfig,
)

CHUNK_BYTES = 2**26
"""Maximum size of the float32 logits of a chunk on a CPU, and the least maximum on a GPU."""

CHUNK_MEMORY_FRACTION = 1 / 64
"""Maximum size of these logits on a GPU as a fraction of its memory.

The head and its loss hold some six tensors of this size, so they take a tenth of the memory, and a chunk has enough
tokens to keep the GPU busy: with a vocabulary of 50,257 some 2,000 on a GPU of 24 GiB. With `CHUNK_BYTES` it would have
333, in many short kernels, each with logits that are computed twice.
"""


class AbsorbingObjective(Objective):
    r"""The bound under a masking schedule, in continuous time (eq. 5) or in T steps (Sec. 3, L_T).

    diffusion = -alpha'(t) / (1 - alpha(t)) * sum over masked n of -log mu^n(x_t, t)[x_0^n]

    or, in discrete time, T (alpha(s) - alpha(t)) / (1 - alpha(t)) times the same sum, for one of the T steps from t to
    s. The steps go down to time 0, so both forms have the same boundary terms. The discrete bound is a right Riemann
    sum of the integral, to which it converges as steps are divided: from above if the denoiser predicts better with
    fewer masks, as one with the exact conditionals does.
    """

    def __init__(self, config: ScheduledConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.schedule = Schedule.build(config.schedule)
        self.discrete_time: DiscreteTime | None = None

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one Monte Carlo sample of the bound (eq. 5)."""
        t, weight = self.time_and_weight(t)
        x_t = self.q_sample(x0, t, u)
        cross_entropy = masked_token_losses(self, model, x_t, t, class_labels, x0).sum(dim=1)
        return self.add_boundary_terms(weight * cross_entropy, x0.shape[1])

    def time_and_weight(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the time (B,) to mask at and the weight (B,) of the cross entropy, for a uniform t (B,)."""
        if self.discrete_time is None:
            return t, self.schedule.weight(t)
        s, t = self.discrete_time.interval(t)
        mask_prob = self.schedule.one_minus_alpha(t)
        return t, self.discrete_time.timesteps * (mask_prob - self.schedule.one_minus_alpha(s)) / mask_prob

    def q_sample(self, x0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """Sample x_t (B, L) from q(x_t | x_0): each token stays with probability alpha(t), else it is masked."""
        return torch.where(u < self.schedule.alpha(t)[:, None], x0, self.mask_id)

    def add_boundary_terms(self, diffusion: Tensor, length: int) -> ELBO:
        """Add the costs at both ends of time, where the schedule's epsilon keeps alpha from 1 and 0.

        reconstruction = L (1 - alpha(0)) log V      (the tokens masked at time 0, guessed at random)
        prior = L alpha(1) log V                     (App. E)
        """
        guess = length * math.log(self.vocab_size)
        return ELBO(
            reconstruction=guess * (1 - self.schedule.alpha(torch.zeros_like(diffusion))),
            prior=guess * self.schedule.alpha(torch.ones_like(diffusion)),
            diffusion=diffusion,
        )


class WeightedObjective(AbsorbingObjective):
    r"""An absorbing objective whose training loss may differ from its bound,

        loss = E_{t ~ q} lambda(t) E_mask sum over masked n of the token loss

    with q the `time_distribution` and lambda the `loss_weight`: the bound's, or 1. The bound has q = 1, and `elbo` does
    not depend on either. Only the product q lambda matters for the mean of the gradient.
    """

    config: WeightedLossConfig

    def __init__(self, config: ScheduledConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.time_distribution = TimeDistribution.build(self.config.time_distribution)
        self.is_flat = self.config.loss_weight == "flat"
        self.has_exact_counts = isinstance(self.config, CountedLossConfig) and self.config.exact_counts
        self.is_trained_by_bound = not self.is_flat and self.config.time_distribution == UniformTimesConfig()

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return the mean of the loss over `num_mask_samples` masks at the same quantile of the time, (B,).

        If it is the bound it has the bound's boundary terms, and otherwise none.
        """
        losses = []
        for u_mask in u.chunk(self.num_mask_samples, dim=1):
            x_t, time, weight = self.training_sample(x0, t, u_mask)
            cross_entropy = masked_token_losses(self, model, x_t, time, class_labels, x0).sum(dim=1)
            losses.append(self.training_value(weight, cross_entropy, x0.shape[1]))
        return torch.stack(losses).mean(dim=0)

    def training_value(self, weight: Tensor, cross_entropy: Tensor, length: int) -> Tensor:
        """Return the loss (B,) of one mask, for its weight (B,) and the sum of its tokens' losses (B,)."""
        diffusion = weight * cross_entropy
        return self.add_boundary_terms(diffusion, length).total if self.is_trained_by_bound else diffusion

    def training_sample(self, x0: Tensor, t: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_t (B, L), the time (B,) and the weight (B,), for a quantile t (B,) of the time and u (B, L)."""
        if self.has_exact_counts:
            return self._exact_flat_sample(x0, t, u) if self.is_flat else self._exact_sample(x0, t, u)
        t, weight = self.time_and_weight(self.time_distribution.quantile(t))
        return self.q_sample(x0, t, u), t, torch.ones_like(weight) if self.is_flat else weight

    def _exact_sample(self, x0: Tensor, quantile: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return x_t with exactly n tokens masked, a time given n, and the weight that keeps the expected loss.

        With m = 1 - alpha(t), so that lambda(t) dt = dm / m, and (1 / m) Bin(n; L, m) = (1 / n) Beta(m; n, L - n + 1),
        the expected loss is the sum over n of

            1 / n E_{m ~ Beta(n, L - n + 1)} S_n(m)

        with S_n the mean of the token losses' sum over sets of n tokens. n is 1 + floor(L m) at the given quantile, and
        its probability divides the weight: under the linear schedule the weights are L / n, except for its epsilon. m
        is the n-th smallest of the uniforms that choose the set, of which it is independent.

        Raises:
            ValueError: Some n is never drawn, since it is out of reach for every time.
        """
        length, schedule = x0.shape[1], self.schedule
        first, last = schedule.one_minus_alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        if max(first, 1 - last) * length >= 1:
            raise ValueError(
                f"exact_counts needs mask probabilities from below 1 / L to above 1 - 1 / L, L = {length}; those of the"
                f" schedule are {first:.3g} to {last:.3g}: lower its epsilon, or leave exact_counts out"
            )
        n = (schedule.one_minus_alpha(quantile) * length).floor().clamp(max=length - 1) + 1
        below, above = (schedule.inverse(1 - count / length) for count in (n - 1, n))
        prob = torch.where(n == length, 1, above) - torch.where(n == 1, 0, below)
        m = u.sort(dim=1).values.gather(1, n.long()[:, None] - 1).squeeze(1)
        # No time has the mask probabilities beyond those of both ends.
        weight = (1 / prob / n).masked_fill((m < first) | (m > last), 0)
        return torch.where(mask_exactly_k(n, u), self.mask_id, x0), schedule.inverse(1 - m), weight

    def _exact_flat_sample(self, x0: Tensor, quantile: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return the same as `_exact_sample` for the weight 1 under the linear schedule.

        There m is uniform from 1 - alpha(0) to 1 - alpha(1). Since Bin(n; L, m) is 1 / (L + 1) times the density of
        Beta(n + 1, L - n + 1) at m, the expected loss is, up to the two ends, the mean over n = 0, ..., L of

            E_{m ~ Beta(n + 1, L - n + 1)} S_n(m)

        n is the integer part of L + 1 times the quantile. The fractional part is a uniform that does not depend on n,
        and m the (n + 1)-th smallest of it and the uniforms that choose the set.
        """
        length = x0.shape[1]
        first, last = self.schedule.one_minus_alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        n = (quantile * (length + 1)).floor().clamp(max=length)
        ordered = torch.cat([u.new_zeros(len(u), 1), u.sort(dim=1).values, u.new_ones(len(u), 1)], dim=1)
        below, above = ordered.gather(1, torch.stack([n, n + 1], dim=1).long()).unbind(dim=1)
        m = (quantile * (length + 1) - n).clamp(below, above)
        weight = torch.full_like(m, 1 / (last - first)).masked_fill((m < first) | (m > last), 0)
        return torch.where(mask_exactly_k(n, u), self.mask_id, x0), self.schedule.inverse(1 - m), weight


class MD4(WeightedObjective, config=MD4Config):
    """The paper's objective: by default the bound itself is the loss."""

    estimator = "md4 bound"

    def __init__(self, config: MD4Config, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.num_mask_samples = config.num_mask_samples
        if config.timesteps is not None:
            self.discrete_time = DiscreteTime(config.timesteps, config.time_grid)
            self.estimator = f"md4 bound, T = {config.timesteps}"


def masked_token_losses(
    objective: Objective, model: Denoiser, x_t: Tensor, t: Tensor, class_labels: Tensor | None, *targets: Tensor
) -> Tensor:
    """Return `objective.token_loss` at the masked positions of x_t (B, L), and 0 at the others, (B, L).

    Args:
        objective: Gives the token loss and the mask's index.
        model: The denoiser.
        x_t: (B, L).
        t: (B,), passed to the denoiser like the `class_labels`, (B,) or None.
        class_labels: See t.
        *targets: (B, L) each, further arguments of the token loss: the prediction target comes first.

    Returns:
        (B, L).
    """
    is_masked = (x_t == objective.mask_id).flatten()
    # The head's shapes depend on this number; a GPU runs the denoiser while the host waits for it.
    num_masked = async_item(is_masked.sum())
    hidden = model(x_t, t, class_labels)
    positions = is_masked.nonzero_static(size=num_masked()).squeeze(1)
    hidden, *targets_N = (tensor.flatten(0, 1).index_select(0, positions) for tensor in (hidden, *targets))
    losses = chunked_token_loss(objective, model, hidden, *targets_N)
    return losses.new_zeros(len(is_masked)).index_copy(0, positions, losses).view(x_t.shape)


def chunked_token_loss(objective: Objective, model: Denoiser, hidden: Tensor, *targets: Tensor) -> Tensor:
    """Return the token losses (N,) of hidden states (N, D), with a bounded number of logits at a time."""
    count = 1 + torch.float32.itemsize * len(hidden) * objective.vocab_size // max_chunk_bytes(hidden.device)
    if count == 1:
        return objective.token_loss(model.head(hidden), *targets)

    def token_loss(states: Tensor, *chunk: Tensor) -> Tensor:
        return objective.token_loss(model.head(states), *chunk)

    chunks = zip(*(tensor.chunk(count) for tensor in (hidden, *targets)), strict=True)
    losses = [checkpoint(token_loss, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    return torch.cat(losses)


def max_chunk_bytes(device: torch.device) -> int:
    """Return the maximum size in bytes of the float32 logits of a chunk on this device."""
    if device.type != "cuda":
        return CHUNK_BYTES
    return max(CHUNK_BYTES, int(CHUNK_MEMORY_FRACTION * torch.cuda.get_device_properties(device).total_memory))


def async_item(scalar: Tensor) -> Callable[[], int]:
    """Start copying a scalar () to the host; call the result to wait for it and read it.

    `int(scalar)` at that point would make the GPU finish all work queued in between, and then idle until more arrives.
    """
    if scalar.device.type != "cuda":
        return lambda: int(scalar)
    host = torch.empty((), dtype=scalar.dtype, pin_memory=True).copy_(scalar, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> int:
        copied.synchronize()
        return int(host)

    return read


def mask_exactly_k(k: Tensor, u: Tensor) -> Tensor:
    """Return a mask (B, L) bool of the k (B,) smallest uniforms u (B, L): a uniform subset of k positions."""
    ranks = u.argsort(dim=1).argsort(dim=1)
    return ranks < k[:, None]
