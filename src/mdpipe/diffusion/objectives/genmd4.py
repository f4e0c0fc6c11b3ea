"""GenMD4: masked diffusion in which each token of the vocabulary has its own, learned masking schedule (Sec. 6).

Shapes: B batch, L length, N masked positions of a batch, V vocabulary. Everything is in nats per example.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.md4 import masked_token_losses
from mdpipe.diffusion.schedules.base import DiscreteTime
from mdpipe.params.diffusion import GenMD4Config

T_MIN = 1e-3
"""Lower limit of the integral over time: below it, the factor 1 / t would give samples of huge weight."""

MAX_EXPONENT = 80
"""Larger exponents overflow in float32, and have a factor below e^-80 in the divergence."""
SOFTPLUS_THRESHOLD = 40
"""Threshold above which softplus(x) = x in float64. PyTorch's default of 20 leaves a jump of 2e-9."""


class PerTokenSchedule(nn.Module):
    """The schedules alpha_i(t) = 1 - (1 - epsilon) t^(w_i) of V tokens (Sec. 6; epsilon is the official code's),
    equal at first.

    A token with a large exponent w_i stays unmasked for longer. All are unmasked at time 0, and a fraction epsilon of
    each is at time 1. The learned parameter is raw, w_i = softplus(raw_i). Everything is computed in float64.

    Args:
        vocab_size: V.
        initial_exponent: Initial w of all tokens, positive.
        epsilon: Fraction of each token that is unmasked at time 1, in [0, 1).
    """

    def __init__(self, vocab_size: int, initial_exponent: float, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        # The inverse of softplus, log(e^w - 1), in the form that does not overflow.
        raw = initial_exponent + math.log(-math.expm1(-initial_exponent))
        self.raw = nn.Parameter(torch.full((vocab_size,), raw))  # This name is part of saved models.

    @property
    def w(self) -> Tensor:
        """Return the exponents, (V,) float64, differentiable in the parameter."""
        return functional.softplus(self.raw.double(), threshold=SOFTPLUS_THRESHOLD)

    def alpha(self, t: Tensor) -> Tensor:
        """Return the probability (..., V) that each token is still unmasked at times (...)."""
        return -torch.expm1(self.log_one_minus_alpha(self.w, t[..., None]))

    def one_minus_alpha(self, t: Tensor) -> Tensor:
        """Return 1 - alpha (..., V) at times (...), to full relative accuracy."""
        return self.log_one_minus_alpha(self.w, t[..., None]).exp()

    def log_one_minus_alpha(self, w: Tensor, t: Tensor) -> Tensor:
        """Return log(1 - alpha) = log(1 - epsilon) + w log t, for w and t of shapes that broadcast together."""
        return math.log1p(-self.epsilon) + w * t.log()


class GenMD4(Objective, config=GenMD4Config):
    r"""The bound under alpha_i(t) = 1 - (1 - epsilon) t^(w_i), with x a masked token and mu the denoiser's output:

        diffusion = (1 / t) * sum over masked n of w^T mu - w_x - w_x log mu_x                              (eq. 32)

    with t uniform on [T_MIN, 1], multiplied by the length of that interval; or, in T steps down to time 0, T times the
    Kullback-Leibler divergence between the true and the model's reverse transition from t to s,

        sum over masked n of -r_x log mu_x + (1 - r_x) (log(1 - r_x) - log sum_i (1 - r_i) mu_i),  1 - r_i = (s / t)^w_i

    The boundary terms are exact: prior = L epsilon log V, and in continuous time, a token i that is masked at T_MIN is
    guessed with a probability proportional to 1 - alpha_i.

    The mask's distribution depends on w, so the gradient in w has a part that differentiating the sample misses. The
    loss takes two masks at each time and estimates it by leave-one-out (App. I.2). With unequal exponents a masked
    token's distribution depends on the time, so that only a time-conditioned denoiser can represent it.
    """

    estimator = "genmd4 bound"
    num_mask_samples = 2

    def __init__(self, config: GenMD4Config, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.schedule = PerTokenSchedule(vocab_size, config.initial_exponent, config.epsilon)
        self.discrete_time: DiscreteTime | None = None
        if config.timesteps is not None:
            self.discrete_time = DiscreteTime(config.timesteps, config.time_grid)
            self.estimator = f"genmd4 bound, T = {config.timesteps}"
        self.learning_rate = config.exponent_learning_rate

    def extra_metrics(self) -> dict[str, float]:
        """Return the smallest, the median and the largest exponent."""
        w = self.schedule.w.detach()
        return {"w_min": w.min().item(), "w_median": w.median().item(), "w_max": w.max().item()}

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return the mean of the bound over two masks at the same time, with the leave-one-out gradient (App. I.2).

        With f1 and f2 the integrands, (f1 - f2) (grad log q1 - grad log q2) / 2 is added to the gradient of their mean.
        """
        (f1, log_q1), (f2, log_q2) = (
            self._integrand(model, x0, t, u_mask, class_labels) for u_mask in u.chunk(self.num_mask_samples, dim=1)
        )
        score = (f1 - f2).detach() * (log_q1 - log_q2) / 2
        return self.add_boundary_terms((f1 + f2) / 2, x0).total + score - score.detach()

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one Monte Carlo sample of the bound."""
        diffusion, _ = self._integrand(model, x0, t, u, class_labels)
        return self.add_boundary_terms(diffusion, x0)

    def _integrand(
        self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the diffusion part (B,) at one mask, and log q (B,) of that mask."""
        s, t, weight = self.interval(t)
        x_t, log_q = self._q_sample(x0, t, u)
        return weight * self.masked_losses(model, x_t, s, t, class_labels, x0).sum(dim=1), log_q

    def interval(self, t: Tensor) -> tuple[Tensor | None, Tensor, Tensor | int]:
        """Return s (B,), or None in continuous time, t (B,) and the weight of the losses, for a uniform t (B,)."""
        if self.discrete_time is None:
            t = T_MIN + (1 - T_MIN) * t
            return None, t, (1 - T_MIN) / t
        s, t = self.discrete_time.interval(t)
        return s, t, self.discrete_time.timesteps

    def masked_losses(
        self, model: Denoiser, x_t: Tensor, s: Tensor | None, t: Tensor, class_labels: Tensor | None, x0: Tensor
    ) -> Tensor:
        """Return the loss at each masked position of x_t, and 0 at the others, (B, L), for a result of `interval`."""
        if s is None:
            return masked_token_losses(self, model, x_t, t, class_labels, x0)
        is_last = s == 0
        # The last step, to time 0, unmasks everything: any finite ratio will do.
        log_ratio = (torch.where(is_last, t, s) / t).log()
        per_position = (value[:, None].expand_as(x0) for value in (log_ratio, is_last))
        return masked_token_losses(self, model, x_t, t, class_labels, x0, *per_position)

    def _q_sample(self, x0: Tensor, t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Sample x_t (B, L) from q(x_t | x_0) at t (B,); return it with log q of its mask, (B,)."""
        log_mask_prob = self.schedule.log_one_minus_alpha(self.schedule.w[x0], t[:, None])
        is_masked = u >= -torch.expm1(log_mask_prob.detach())
        # Filled, since the gradient of log alpha is infinite where alpha = 0, even if `where` does not select it there.
        log_alpha = (-torch.expm1(log_mask_prob.masked_fill(is_masked, -1))).log()
        x_t = torch.where(is_masked, self.mask_id, x0)
        return x_t, torch.where(is_masked, log_mask_prob, log_alpha).sum(dim=1)

    def token_loss(self, logits: Tensor, target: Tensor, *step: Tensor) -> Tensor:
        """Return the integrand's rate (N,), or, in discrete time, given log(s / t) and s == 0, the divergence (N,)."""
        log_mu = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
        w = self.schedule.w.to(log_mu.dtype)
        return _rate(log_mu, w, target) if self.discrete_time is None else _divergence(log_mu, w, target, *step)

    def add_boundary_terms(self, diffusion: Tensor, x0: Tensor) -> ELBO:
        """Add the costs at both ends of time to the diffusion part (B,)."""
        reconstruction = torch.zeros_like(diffusion)
        if self.discrete_time is None:
            log_t = math.log(T_MIN)
            log_mask_prob = math.log1p(-self.schedule.epsilon) + self.schedule.w[x0] * log_t
            log_guess = (self.schedule.w * log_t).log_softmax(dim=0)[x0]
            reconstruction = -(log_mask_prob.exp() * log_guess).sum(dim=1)
        prior = torch.full_like(diffusion, x0.shape[1] * self.schedule.epsilon * math.log(self.vocab_size))
        return ELBO(reconstruction, prior, diffusion)


def _rate(log_mu: Tensor, w: Tensor, target: Tensor) -> Tensor:
    """Return w^T mu - w_x - w_x log mu_x, (N,), for log mu (N, V), w (V,) and targets x (N,)."""
    log_mu_x = log_mu.gather(1, target[:, None]).squeeze(1)
    return (log_mu.exp() * w).sum(dim=1) - w[target] * (1 + log_mu_x)


def _divergence(log_mu: Tensor, w: Tensor, target: Tensor, log_ratio: Tensor, is_last: Tensor) -> Tensor:
    """Return the divergences (N,) of a step, for log(s / t) (N,) and s == 0 (N,); the others as in `_rate`.

    Computed as -r_x log mu_x - (1 - r_x) log(1 + sum_i mu_i ((s / t)^(w_i - w_x) - 1)), in which nothing cancels when
    the step is short.
    """
    log_ratio = log_ratio.to(log_mu.dtype)
    log_mu_x = log_mu.gather(1, target[:, None]).squeeze(1)
    log_stay_prob = w[target] * log_ratio
    unmask_prob = torch.where(is_last, 1, -torch.expm1(log_stay_prob))
    exponents = ((w - w[target][:, None]) * log_ratio[:, None]).clamp(max=MAX_EXPONENT)
    surplus = (log_mu.exp() * torch.expm1(exponents)).sum(dim=1)
    return -unmask_prob * log_mu_x - log_stay_prob.exp() * torch.log1p(surplus)
