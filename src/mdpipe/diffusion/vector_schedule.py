"""GenMD4's schedule: every token of the vocabulary turns into the mask at a speed of its own, and speeds are learned.

alpha_i(t) = 1 - (1 - epsilon) t^(w_i)  (Sec. 6 and App. J.1),  w_i = softplus(raw_i)

A token with a large exponent w_i stays visible for longer. All of them are visible at time 0; a share epsilon of each
is at time 1. Everything is computed in float64.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.diffusion.schedules.base import EPSILON

IDENTITY = 40
"""Where softplus(raw) = raw in float64. PyTorch's own threshold of 20 leaves a jump of 2e-9."""


class VectorSchedule(nn.Module):
    """The exponents of V tokens, equal at first.

    Raises:
        ValueError: the initial exponent is not positive, or epsilon lies outside [0, 1).
    """

    def __init__(self, vocabulary: int, initial_exponent: float, epsilon: float = EPSILON) -> None:
        super().__init__()
        if not 0 < initial_exponent < math.inf:
            raise ValueError(f"diffusion.initial_exponent must be positive, not {initial_exponent}")
        if not 0 <= epsilon < 1:
            raise ValueError(f"schedule: epsilon must lie in [0, 1), not {epsilon}")
        self.epsilon = epsilon
        # Softplus's inverse, log(e^w - 1), in the form that does not overflow.
        raw = initial_exponent + math.log(-math.expm1(-initial_exponent))
        self.raw = nn.Parameter(torch.full((vocabulary,), raw))

    @property
    def exponents(self) -> Tensor:
        """w, (V,) float64, differentiable in the weights."""
        return functional.softplus(self.raw.double(), threshold=IDENTITY)

    def alpha(self, time: Tensor) -> Tensor:
        """Probability (..., V) that each token is still visible at times (...)."""
        return -torch.expm1(self.log_masked(self.exponents, time[..., None]))

    def masked(self, time: Tensor) -> Tensor:
        """1 - alpha (..., V) at times (...), to full relative accuracy."""
        return self.log_masked(self.exponents, time[..., None]).exp()

    def log_masked(self, exponents: Tensor, time: Tensor) -> Tensor:
        """log(1 - alpha) = log(1 - epsilon) + w log t, of exponents and times of shapes that broadcast together."""
        return math.log1p(-self.epsilon) + exponents * time.log()
