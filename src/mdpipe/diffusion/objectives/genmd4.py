"""GenMD4: masked diffusion in which every token has a masking speed of its own, learned with the denoiser (Sec. 6).

Letters: B examples, L positions, N masked positions of a batch, V vocabulary. Everything is in nats per example.
"""

import math

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Bound, Objective
from mdpipe.diffusion.objectives.masked import masked_costs
from mdpipe.diffusion.objectives.steps import Steps
from mdpipe.diffusion.schedules.base import EPSILON
from mdpipe.diffusion.vector_schedule import VectorSchedule

FIRST_TIME = 1e-3
"""Where the integral over time begins: 1 / t would give the times below it draws of huge weight."""


class GenMD4(Objective):
    r"""The bound under alpha_i(t) = 1 - (1 - epsilon) t^(w_i), with x a masked token and mu the denoiser's output:

        diffusion = (1 / t) * sum over masked n of w^T mu - w_x - w_x log mu_x                              (eq. 12)

    with t uniform on [FIRST_TIME, 1], multiplied by the length of that range; or, in T steps down to time 0, T times
    the Kullback-Leibler divergence between the two ways back from t to s,

        sum over masked n of -r_x log mu_x + (1 - r_x) (log(1 - r_x) - log sum_i (1 - r_i) mu_i),  1 - r_i = (s / t)^w_i

    The end terms are exact: prior = L epsilon log V, and at FIRST_TIME, in continuous time, a masked token i is guessed
    with a probability proportional to 1 - alpha_i.

    Which tokens are masked depends on w, so the gradient in w has a part that differentiating the draw does not see.
    The loss takes two draws at a time and estimates it by leave-one-out (eq. 33). A masked token's distribution depends
    on the time when exponents differ, so that only a time-conditioned denoiser can reach it.

    Args:
        vocabulary: V.
        initial_exponent: of all tokens, before training.
        timesteps: T, or None for continuous time.
        grid: the spacing of the steps.
        exponent_learning_rate: peak learning rate of w's parameters; None for that of the network.
        epsilon: share of each token that is visible at time 1.

    Raises:
        ValueError: an initial exponent or a learning rate that is not positive, an epsilon outside [0, 1), fewer than
            one step, or a grid that does not exist.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        initial_exponent: float,
        timesteps: int | None = None,
        grid: str = "uniform",
        exponent_learning_rate: float | None = None,
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__(vocabulary)
        if exponent_learning_rate is not None and not exponent_learning_rate > 0:
            raise ValueError(
                f"diffusion.exponent_learning_rate must be positive, or null for the network's,"
                f" not {exponent_learning_rate}"
            )
        self.schedule = VectorSchedule(vocabulary, initial_exponent, epsilon)
        self.steps = None if timesteps is None else Steps(timesteps, grid)
        self.learning_rate = exponent_learning_rate

    @property
    def exponents(self) -> Tensor:
        """w, (V,) float64."""
        return self.schedule.exponents

    @property
    def estimator(self) -> str:
        """The bound, with its number of steps where that is finite."""
        return "genmd4 bound" if self.steps is None else f"genmd4 bound, T = {self.steps.count}"

    def learned(self) -> str:
        """The smallest, the median and the largest exponent."""
        exponents = self.exponents.detach()
        ends = (exponents.min(), exponents.median(), exponents.max())
        return "exponents " + " / ".join(f"{exponent.item():.3g}" for exponent in ends)

    def loss_uniforms(self, length: int) -> int:
        """One a token and mask, of two masks."""
        return 2 * length

    def loss(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """The mean of the bound over two draws at the same time, with the leave-one-out gradient (eq. 33).

        With f the draws' integrands, (f1 - f2) (grad log q1 - grad log q2) / 2 is added to their mean's own gradient.
        """
        (first, first_log_q), (second, second_log_q) = (
            self._draw(denoiser, tokens, time, draw, condition) for draw in uniforms.chunk(2, dim=1)
        )
        score = (first - second).detach() * (first_log_q - second_log_q) / 2
        return self._with_ends((first + second) / 2, tokens).total + score - score.detach()

    def bound(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Bound:
        """One draw of the bound."""
        diffusion, _ = self._draw(denoiser, tokens, time, uniforms, condition)
        return self._with_ends(diffusion, tokens)

    def _draw(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The diffusion part of one mask, (B,), and log q of the mask, (B,)."""
        if self.steps is None:
            time = FIRST_TIME + (1 - FIRST_TIME) * time
            masked, log_q = self._hide(tokens, time, uniforms)
            corrupted = torch.where(masked, self.mask, tokens)
            costs = masked_costs(denoiser, corrupted, self.mask, time, condition, self.costs, tokens)
            return (1 - FIRST_TIME) / time * costs, log_q
        start, time = self.steps.drawn(time)
        masked, log_q = self._hide(tokens, time, uniforms)
        final = start == 0
        # The last step, to time 0, reveals everything: any finite ratio will do.
        log_ratio = (torch.where(final, time, start) / time).log()
        corrupted = torch.where(masked, self.mask, tokens)
        values = (tokens, *(value[:, None].expand_as(tokens) for value in (log_ratio, final)))
        costs = masked_costs(denoiser, corrupted, self.mask, time, condition, self.costs, *values)
        return self.steps.count * costs, log_q

    def _hide(self, tokens: Tensor, time: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the tokens (B, L) are masked at times (B,), and log q of that, (B,)."""
        log_masked_BL = self.schedule.log_masked(self.exponents[tokens], time[:, None])
        masked = uniforms >= -torch.expm1(log_masked_BL.detach())
        # Filled, since the gradient of log alpha is infinite where alpha = 0, even if it is not what is taken there.
        log_visible_BL = (-torch.expm1(log_masked_BL.masked_fill(masked, -1))).log()
        return masked, torch.where(masked, log_masked_BL, log_visible_BL).sum(dim=1)

    def cost(self, logits: Tensor, hidden: Tensor, *of_step: Tensor) -> Tensor:
        """The rate of the integrand, or, in steps, with log(s / t) and whether s = 0, the divergence."""
        return self._rates(logits, hidden) if self.steps is None else self._divergences(logits, hidden, *of_step)

    def _rates(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """w^T mu - w_x - w_x log mu_x, (N,), of mu's logits (N, V) and the hidden tokens x (N,)."""
        log_mu = logits.log_softmax(dim=1)
        exponents = self.exponents.to(log_mu.dtype)
        log_mu_N = log_mu.gather(1, hidden[:, None]).squeeze(1)
        return (log_mu.exp() * exponents).sum(dim=1) - exponents[hidden] * (1 + log_mu_N)

    def _divergences(self, logits: Tensor, hidden: Tensor, log_ratio: Tensor, final: Tensor) -> Tensor:
        """The divergences (N,), of mu's logits (N, V), with log(s / t) (N,), and whether s = 0 (N,).

        Written as -r_x log mu_x - (1 - r_x) log(1 + sum_i mu_i ((s / t)^(w_i - w_x) - 1)), where nothing cancels when
        the step is short.
        """
        log_mu = logits.log_softmax(dim=1)
        exponents, log_ratio = self.exponents.to(log_mu.dtype), log_ratio.to(log_mu.dtype)
        log_mu_N = log_mu.gather(1, hidden[:, None]).squeeze(1)
        log_stay_N = exponents[hidden] * log_ratio
        reveal_N = torch.where(final, 1, -torch.expm1(log_stay_N))
        differences_NV = (exponents - exponents[hidden][:, None]) * log_ratio[:, None]
        surplus_N = (log_mu.exp() * torch.expm1(differences_NV)).sum(dim=1)
        return -reveal_N * log_mu_N - log_stay_N.exp() * torch.log1p(surplus_N)

    def _with_ends(self, diffusion: Tensor, tokens: Tensor) -> Bound:
        """The bound of this diffusion part, (B,)."""
        reconstruction = torch.zeros_like(diffusion)
        if self.steps is None:
            log_time = math.log(FIRST_TIME)
            log_masked_BL = math.log1p(-self.schedule.epsilon) + self.exponents[tokens] * log_time
            log_guess_BL = (self.exponents * log_time).log_softmax(dim=0)[tokens]
            reconstruction = -(log_masked_BL.exp() * log_guess_BL).sum(dim=1)
        prior = torch.full_like(diffusion, tokens.shape[1] * self.schedule.epsilon * math.log(self.vocabulary))
        return Bound(reconstruction, prior, diffusion)
