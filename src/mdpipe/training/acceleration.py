"""What makes a network train faster or in less memory, the same but for rounding: torch.compile, recomputed layers."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import get_blocks
from mdpipe.training.progress import print_line

if TYPE_CHECKING:
    from mdpipe.params import HardwareSettings


def accelerate(
    network: nn.Module,
    objective: Objective,
    hardware: "HardwareSettings",
    announce: Callable[[str], None] = print_line,
) -> None:
    """Have the network recompute, and it and what its logits cost be compiled, as `hardware` asks for.

    Where no compiler works, `announce` gets a line that says so, and both run as they are. Layers are compiled one by
    one, since those that are alike share their code, and for each shape anew, since a run has one or two. The costs are
    compiled for any number of tokens, since how many are masked differs from step to step.
    """
    if hardware.recompute:
        for layer in get_blocks(network):
            layer.forward = partial(_recomputed, layer.forward)
    if hardware.compile:
        if problem := compiler_problem(next(network.parameters()).device):
            announce(f"hardware.compile is left out, since no compiler works here: {problem}")
        else:
            # The compiler is told that kernels are to be deterministic, if they already are.
            torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
            for layer in get_blocks(network):
                layer.compile(dynamic=False)
            objective.costs = torch.compile(objective.costs, dynamic=True)  # type: ignore[method-assign]


def compiler_problem(device: torch.device) -> str:
    """What goes wrong where a trifle is compiled; empty if nothing does."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:
        return str(error).strip().splitlines()[0]
    return ""


def _recomputed(forward: Callable[..., Any], *arguments: Any) -> Any:
    """A layer's forward pass, of which only the input is kept: its inside is computed again on the way back."""
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False)
