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
from mdpipe.params.training import MatrixOptimizerConfig, NorMuonConfig, TrainConfig, WarmupStableDecayConfig
from mdpipe.training.distributed import to_local
from mdpipe.training.muon import EagerOptimizer, Muon, NorMuon, decay_cautiously

BETA1 = 0.9
"""AdamW's decay of the first moment; every recipe of the paper uses this value."""


def learning_rate_at(step: int, settings: TrainConfig) -> float:
    r"""Return the learning rate of step k = 0, 1, ..., steps - 1: linear warm-up over W steps, then r times a factor.

        r (k + 1) / W                      for k < W
        r f((k - D) / (steps - D))         for k >= D, and r in between

    The cosine decay has D = W and f(p) = (1 + cos(pi p)) / 2. Warm-up-stable-decay has a later D and f(p) = 1 - p, or
    1 - sqrt(p). The peak r is reached at the end of the warm-up, and the rate would be 0 at k = steps, after the last
    step. The official code's warm-up is r k / W, one step behind: its first step changes nothing.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    start = settings.decay_start()
    progress = max(0, step - start) / (settings.steps - start)
    match settings.lr_schedule:
        case WarmupStableDecayConfig(shape="linear"):
            return settings.learning_rate * (1 - progress)
        case WarmupStableDecayConfig():
            return settings.learning_rate * (1 - math.sqrt(progress))
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class AdamW(EagerOptimizer, torch.optim.AdamW):
    """torch.optim.AdamW without the compiler."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class CautiousAdamW(AdamW):
    """AdamW that only decays the entries whose step points towards 0, or is 0 (arXiv:2510.12402).

    A step has the sign of minus the first moment, which is known before the moment is updated. A group's weight decay
    is under the key `cautious_weight_decay`, since torch would apply `weight_decay` to all entries.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update the parameters from their gradients."""
        for group in self.param_groups:
            weights, moments = [], []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                moment, gradient = self.state[parameter].get("exp_avg"), to_local(parameter.grad)
                moments.append(gradient if moment is None else to_local(moment).lerp(gradient, 1 - group["betas"][0]))
                weights.append(to_local(parameter))
            decay_cautiously(weights, moments, group["lr"] * group["cautious_weight_decay"])
        super().step()


def build_optimizers(network: nn.Module, objective: Objective, settings: TrainConfig) -> list[torch.optim.Optimizer]:
    """Build AdamW, and Muon or NorMuon as the second optimizer if `train.optimizer.kind` is `muon` or `normuon`.

    Every network parameter has weight decay, as in the paper's code. With Muon, AdamW has the parameters that are not
    matrices or convolutions of a layer. The objective's own parameters are a group of AdamW without weight decay; the
    paper's code decays GenMD4's raw exponents like all others, which pulls w = softplus(raw) towards log 2 for no
    reason.

    Raises:
        ValueError: Muon is chosen, and the network has neither matrices nor convolutions in its layers.
    """
    optimizer = settings.optimizer
    objective_peak = settings.learning_rate if objective.learning_rate is None else objective.learning_rate
    matrices = layer_matrices(network) if isinstance(optimizer, MatrixOptimizerConfig) else []
    if isinstance(optimizer, MatrixOptimizerConfig) and not matrices:
        raise ValueError(
            f"train.optimizer.kind = '{optimizer.kind}' needs a network with matrices or convolutions in its layers;"
            " take adamw"
        )
    muon_ids = set(map(id, matrices))
    decay = "cautious_weight_decay" if optimizer.cautious_weight_decay else "weight_decay"
    others = [parameter for parameter in network.parameters() if id(parameter) not in muon_ids]
    objective_rate = objective_peak / settings.learning_rate
    adamw = (CautiousAdamW if optimizer.cautious_weight_decay else AdamW)(
        [
            {"params": others, "relative_rate": 1.0, decay: optimizer.weight_decay},
            {"params": objective.parameters(), "relative_rate": objective_rate, decay: 0.0},
        ],
        lr=settings.learning_rate,
        betas=(BETA1, optimizer.beta2),
        weight_decay=0.0,
        fused=True,
    )
    if not isinstance(optimizer, MatrixOptimizerConfig):
        return [adamw]
    matrix_peak = settings.learning_rate if optimizer.learning_rate is None else optimizer.learning_rate
    row_beta2 = {"row_beta2": optimizer.row_beta2} if isinstance(optimizer, NorMuonConfig) else {}
    muon = (NorMuon if row_beta2 else Muon)(
        [{"params": matrices, "relative_rate": matrix_peak / settings.learning_rate}],
        lr=settings.learning_rate,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        cautious_weight_decay=optimizer.cautious_weight_decay,
        **row_beta2,
    )
    return [adamw, muon]


def layer_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters for Muon: the matrices and the kernels of convolutions of the network's blocks.

    What is outside of `get_blocks` is left to AdamW: embedding, first and last convolution, head, a U-Net's attention
    and a U-ViT's projections of patches. So is the modulation by time and class.
    """
    named = [entry for layer in get_blocks(network) for entry in layer.named_parameters()]
    return [parameter for name, parameter in named if parameter.ndim >= 2 and "modulation" not in name]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], learning_rate: float) -> None:
    """Set the network's learning rate, and those of the objective and of Muon in proportion to their own peaks."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["relative_rate"]


def clip_gradient(parameters: Iterable[nn.Parameter], norm: Tensor, max_norm: float | None) -> None:
    """Scale down gradients whose total norm is `norm` to at most `max_norm`; None disables clipping."""
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(list(parameters), max_norm, norm)


def ema_decay_at(step: int, decay: float, start: int = 0) -> float:
    """Return min(decay, (1 + j) / (10 + j)) at step k = start + j: short averages first, to forget the first weights.

    Before `start` it is 0, so that the average is the weights. The official code uses `decay` from the first step; from
    step 90,000 both are the same at a decay of 0.9999.
    """
    return 0.0 if step < start else min(decay, (1 + step - start) / (10 + step - start))


class EMA:
    r"""Exponential moving average of a module's parameters in float32.

        ema <- d ema + (1 - d) weights,    d = ema_decay_at(step, decay, start)

    It starts as a copy of the weights. A module without parameters, as most objectives are, has an empty EMA.
    """

    def __init__(self, module: nn.Module, decay: float, start: int = 0) -> None:
        self._decay, self._start = decay, start
        self._parameters = dict(module.named_parameters())
        self._ema = {name: weight.detach().to(torch.float32, copy=True) for name, weight in self._parameters.items()}

    def update(self, step: int) -> None:
        """Update the average with the weights after step k."""
        weights = [parameter.detach().float() for parameter in self._parameters.values()]
        if weights:
            torch._foreach_lerp_(list(self._ema.values()), weights, 1 - ema_decay_at(step, self._decay, self._start))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name."""
        return self._ema

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Copy the averages from a state dict."""
        for name, average in self._ema.items():
            average.copy_(state_dict[name])
