"""The optimizer: AdamW, or Muon beside it, under a linear warm-up and a cosine decay, the gradient clipped by its norm.

What an objective learns itself has a learning rate of its own, which takes the same course, and no weight decay.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import get_blocks
from mdpipe.training.muon import Muon
from mdpipe.training.parallel import is_spread, norm_of_parts, part_here

if TYPE_CHECKING:
    from mdpipe.params import TrainSettings

BETA1 = 0.9
"""AdamW's decay of the gradient's average; every recipe of the paper uses this value."""


def learning_rate_at(step: int, settings: "TrainSettings") -> float:
    r"""The learning rate of step k = 0, 1, ..., steps - 1, with W warm-up steps and the peak r.

        r (k + 1) / W                                          for k < W
        r (1 + cos(pi (k - W) / (steps - W))) / 2              after it

    It reaches the peak at the end of the warm-up and would be 0 at k = steps, the first step that is not taken. The
    official code's warm-up is r k / W, one step behind: its first step changes nothing.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def build_optimizers(
    network: nn.Module, objective: Objective, settings: "TrainSettings"
) -> list[torch.optim.Optimizer]:
    """AdamW with the weight decay on every parameter of the network, as in the paper's code (no list of exceptions).

    With Muon, which comes second, AdamW has what is no matrix of a layer. The objective's own parameters are AdamW's,
    in a group of their own without weight decay; the paper's code decays GenMD4's raw exponents as all else. A decay
    moves their w = softplus(raw) towards log 2, and the rate at which a token is masked has no reason to go there.

    Raises:
        ValueError: Muon is asked for, and the network has no matrices in its layers.
    """
    chosen = settings.optimizer
    own_peak = settings.learning_rate if objective.learning_rate is None else objective.learning_rate
    matrices = layer_matrices(network) if chosen.kind == "muon" else []
    if chosen.kind == "muon" and not matrices:
        raise ValueError("train.optimizer.kind = 'muon' needs a network with matrices in its layers; take adamw")
    taken = set(map(id, matrices))
    rest = [parameter for parameter in network.parameters() if id(parameter) not in taken]
    adamw = torch.optim.AdamW(
        [
            {"params": rest, "relative_rate": 1.0},
            {
                "params": objective.parameters(),
                "relative_rate": own_peak / settings.learning_rate,
                "weight_decay": 0.0,
            },
        ],
        lr=settings.learning_rate,
        betas=(BETA1, chosen.beta2),
        weight_decay=chosen.weight_decay,
        fused=True,
    )
    if chosen.kind == "adamw":
        return [adamw]
    muon = Muon(
        [{"params": matrices, "relative_rate": 1.0}],
        lr=settings.learning_rate,
        momentum=chosen.momentum,
        weight_decay=chosen.weight_decay,
    )
    return [adamw, muon]


def layer_matrices(network: nn.Module) -> list[nn.Parameter]:
    """What Muon is for: the matrices of a network's layers.

    Not the embedding and the head, which map from and to tokens, nor what turns a time or class into scales and shifts.
    """
    named = [entry for layer in get_blocks(network) for entry in layer.named_parameters()]
    return [parameter for name, parameter in named if parameter.ndim == 2 and "modulation" not in name]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], learning_rate: float) -> None:
    """Give the network this learning rate, and the objective its own at the same point of warm-up and decay."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["relative_rate"]


def gradient_norms(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of each parameter's gradient, (P,) float32, 0 where there is none; on their device, for none to wait.

    Of gradients that are spread over processes, each takes the norms of its parts, and one exchange makes them whole.
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = iter(torch._foreach_norm([part_here(gradient) for gradient in gradients]))
    nothing = torch.zeros((), device=parameters[0].device)
    norms_P = torch.stack([nothing if parameter.grad is None else next(norms) for parameter in parameters])
    return norm_of_parts(norms_P) if is_spread(gradients) else norms_P


def clip_gradient(parameters: Iterable[nn.Parameter], norm: Tensor, largest: float | None) -> None:
    """Scale the gradient, whose norm over all parameters is `norm`, down to `largest` (None: leave it as it is)."""
    if largest is not None:
        nn.utils.clip_grads_with_norm_(list(parameters), largest, norm)
