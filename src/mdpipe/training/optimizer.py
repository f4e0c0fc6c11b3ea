"""Optimizers, learning rate schedule, gradient clipping and the exponential moving average (EMA) of the weights.

The objective's own parameters have their own peak learning rate, on the same schedule, and no weight decay.
"""

import inspect
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import get_blocks
from mdpipe.params.training import MuonConfig, TrainConfig
from mdpipe.training.muon import EagerOptimizer, Muon

BETA1 = 0.9
"""AdamW's decay of the first moment; every recipe of the paper uses this value."""


def learning_rate_at(step: int, settings: TrainConfig) -> float:
    r"""Return the learning rate of step k = 0, 1, ..., steps - 1: linear warm-up over W steps, then cosine decay.

        r (k + 1) / W                                          for k < W
        r (1 + cos(pi (k - W) / (steps - W))) / 2              otherwise

    It reaches the peak r at the end of the warm-up and would be 0 at k = steps, after the last step. The official
    code's warm-up is r k / W, one step behind: its first step changes nothing.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class AdamW(EagerOptimizer, torch.optim.AdamW):
    """torch.optim.AdamW without the compiler."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def build_optimizers(network: nn.Module, objective: Objective, settings: TrainConfig) -> list[torch.optim.Optimizer]:
    """Build AdamW, and Muon as the second optimizer if `train.optimizer.kind` is `muon`.

    Every network parameter has weight decay, as in the paper's code. With Muon, AdamW has the parameters that are not
    matrices of a layer. The objective's own parameters are a group of AdamW without weight decay; the paper's code
    decays GenMD4's raw exponents like all others, which pulls w = softplus(raw) towards log 2 for no reason.

    Raises:
        ValueError: Muon is chosen, and the network has no matrices in its layers.
    """
    optimizer = settings.optimizer
    objective_peak = settings.learning_rate if objective.learning_rate is None else objective.learning_rate
    matrices = layer_matrices(network) if isinstance(optimizer, MuonConfig) else []
    if isinstance(optimizer, MuonConfig) and not matrices:
        raise ValueError("train.optimizer.kind = 'muon' needs a network with matrices in its layers; take adamw")
    muon_ids = set(map(id, matrices))
    rest = [parameter for parameter in network.parameters() if id(parameter) not in muon_ids]
    adamw = AdamW(
        [
            {"params": rest, "relative_rate": 1.0},
            {
                "params": objective.parameters(),
                "relative_rate": objective_peak / settings.learning_rate,
                "weight_decay": 0.0,
            },
        ],
        lr=settings.learning_rate,
        betas=(BETA1, optimizer.beta2),
        weight_decay=optimizer.weight_decay,
        fused=True,
    )
    if not isinstance(optimizer, MuonConfig):
        return [adamw]
    muon = Muon(
        [{"params": matrices, "relative_rate": 1.0}],
        lr=settings.learning_rate,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
    )
    return [adamw, muon]


def layer_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters for Muon: the matrices of the network's layers.

    Embedding and head, which map from and to tokens, and the modulation by time and class are left to AdamW.
    """
    named = [entry for layer in get_blocks(network) for entry in layer.named_parameters()]
    return [parameter for name, parameter in named if parameter.ndim == 2 and "modulation" not in name]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], learning_rate: float) -> None:
    """Set the network's learning rate, and the objective's in proportion to its own peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["relative_rate"]


def clip_gradient(parameters: Iterable[nn.Parameter], norm: Tensor, max_norm: float | None) -> None:
    """Scale down gradients whose total norm is `norm` to at most `max_norm`; None disables clipping."""
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(list(parameters), max_norm, norm)


def ema_decay_at(step: int, decay: float) -> float:
    """Return min(decay, (1 + k) / (10 + k)) at step k: short averages first, so that the first weights are forgotten.

    The official code uses `decay` from the first step; from step 90,000 both are the same at a decay of 0.9999.
    """
    return min(decay, (1 + step) / (10 + step))


class EMA:
    r"""Exponential moving average of a module's parameters in float32.

        ema <- d ema + (1 - d) weights,    d = ema_decay_at(step, decay)

    It starts as a copy of the weights. A module without parameters, as most objectives are, has an empty EMA.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(module.named_parameters())
        self._ema = {
            name: parameter.detach().to(torch.float32, copy=True) for name, parameter in self._parameters.items()
        }

    def update(self, step: int) -> None:
        """Update the average with the weights after step k."""
        weights = [parameter.detach().float() for parameter in self._parameters.values()]
        if weights:
            torch._foreach_lerp_(list(self._ema.values()), weights, 1 - ema_decay_at(step, self.decay))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name."""
        return self._ema

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Copy the averages from a state dict."""
        for name, average in self._ema.items():
            average.copy_(state_dict[name])
