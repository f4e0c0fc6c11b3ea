"""The exponential moving average of the weights: what is evaluated and sampled from."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + k) / (10 + k)) at step k: short averages first, so that the first weights are soon forgotten.

    The official code has `decay` from the first step on; from step 90,000 on, both are the same at a decay of 0.9999.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    r"""average <- d average + (1 - d) weights, with d = `decay_at(step, decay)`, in float32.

    It begins as a copy of the weights. A module without any, as most objectives are, has an empty average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(module.named_parameters())
        self._average = {
            name: parameter.detach().to(torch.float32, copy=True) for name, parameter in self._parameters.items()
        }

    def update(self, step: int) -> None:
        """Take in the weights as they are after step k."""
        weights = [parameter.detach().float() for parameter in self._parameters.values()]
        if weights:
            torch._foreach_lerp_(list(self._average.values()), weights, 1 - decay_at(step, self.decay))

    def tensors(self) -> dict[str, Tensor]:
        """The averages by the name of their parameter."""
        return self._average

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from averages that `tensors` gave earlier."""
        for name, average in self._average.items():
            average.copy_(tensors[name])
