"""The state of a training run: all that the next step depends on, as tensors by name and back."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.training.checkpoint import Checkpoint
from mdpipe.training.ema import WeightAverage
from mdpipe.training.history import Record
from mdpipe.training.optimizer import build_optimizers
from mdpipe.training.parallel import whole

if TYPE_CHECKING:
    from mdpipe.params import TrainSettings


class TrainingState:
    """Weights of network and objective, their averages, the optimizer's moments and the record of `step` steps.

    There is no random state: randomness is a function of the seed and the step.
    """

    def __init__(self, network: nn.Module, objective: Objective, settings: "TrainSettings") -> None:
        self.device = next(network.parameters()).device
        self.step = 0
        self.network = network
        self.objective = objective.to(self.device)
        self.optimizers = build_optimizers(network, objective, settings)
        self.average = WeightAverage(network, settings.ema_decay)
        self.objective_average = WeightAverage(objective, settings.ema_decay)
        own = [(f"objective.{name}", parameter) for name, parameter in objective.named_parameters()]
        named = dict([*network.named_parameters(), *own])
        self.parameters = list(named.values())
        """Of the network, and then of the objective."""
        self.network_parameters = len(list(network.parameters()))
        """How many of them are the network's."""
        self.record = Record(settings, self.device, named)

    def checkpoint(self) -> Checkpoint:
        """The state now, with FSDP2 as this process's parts. The tensors are live: write them before the next step."""
        moments = {
            f"{number}.{index}.{name}": tensor
            for number, optimizer in enumerate(self.optimizers)
            for index, state in optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        parts = {
            "weights": self.network.state_dict(),
            "objective_weights": self.objective.state_dict(),
            "moments": moments,
            "average": self.average.tensors(),
            "objective_average": self.objective_average.tensors(),
            "record": self.record.tensors(),
        }
        named = {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        return Checkpoint(self.step, named)

    def layout(self) -> Callable[[str], Tensor]:
        """By the name of a checkpoint's tensor, what is in its place now: for a moment, the parameter it belongs to."""
        own = dict(self.checkpoint().tensors)
        for number, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            own |= {f"moments/{number}.{index}": parameter for index, parameter in enumerate(parameters)}
        return lambda name: own[name.rpartition(".")[0] if name.startswith("moments/") else name]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same run."""
        like = self.layout()

        def part(name: str) -> dict[str, Tensor]:
            of_part = {key: tensor for key, tensor in checkpoint.tensors.items() if key.startswith(f"{name}/")}
            return {key.removeprefix(f"{name}/"): _laid_out_like(like(key), of_part[key]) for key in of_part}

        self.step = checkpoint.step
        self.network.load_state_dict(part("weights"))
        self.objective.load_state_dict(part("objective_weights"))
        moments = part("moments")
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in moments.items():
                of, index, name = key.split(".")
                if int(of) == number:
                    state.setdefault(int(index), {})[name] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.average.load(part("average"))
        self.objective_average.load(part("objective_average"))
        self.record.load(part("record"), self.step)

    def update_averages(self) -> None:
        """Take in the weights of network and objective as they are after this step."""
        self.average.update(self.step)
        self.objective_average.update(self.step)

    def averaged_weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The network's and the objective's state with the average in place of each parameter; copies on the CPU."""
        return _averaged(self.network, self.average), _averaged(self.objective, self.objective_average)


def _averaged(module: nn.Module, average: WeightAverage) -> dict[str, Tensor]:
    state = {**module.state_dict(), **average.tensors()}
    return {name: whole(tensor.detach()).to("cpu", copy=True) for name, tensor in state.items()}


def _laid_out_like(target: Tensor, tensor: Tensor) -> Tensor:
    """The same numbers, spread over the processes and ordered in memory as the target is.

    The fused AdamW goes through memory and reads no strides.
    """
    if tensor.shape != target.shape:
        return tensor
    if isinstance(target, DTensor):
        return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements)
    return torch.empty_like(target, requires_grad=False).copy_(tensor)
