"""The state of a training run: all that the next step depends on, as tensors by name and back."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mdpipe.training.checkpoint import Checkpoint
from mdpipe.training.ema import WeightAverage
from mdpipe.training.history import Record
from mdpipe.training.optimizer import build_optimizer

if TYPE_CHECKING:
    from mdpipe.params import TrainSettings


class TrainingState:
    """Weights, their average, the optimizer's moments and the record of `step` steps.

    There is no random state: randomness is a function of the seed and the step.
    """

    def __init__(self, network: nn.Module, settings: "TrainSettings") -> None:
        self.step = 0
        self.network = network
        self.optimizer = build_optimizer(network.parameters(), settings)
        self.average = WeightAverage(network, settings.ema_decay)
        self.record = Record(settings, next(network.parameters()).device)

    def checkpoint(self) -> Checkpoint:
        """The state now. The tensors are the live ones: write them before the next step."""
        moments = {
            f"{index}.{name}": tensor
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        parts = {
            "weights": self.network.state_dict(),
            "moments": moments,
            "average": self.average.tensors(),
            "record": self.record.tensors(),
        }
        return Checkpoint(
            self.step, {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same run."""
        self.step = checkpoint.step
        self.network.load_state_dict(_part(checkpoint, "weights"))
        parameters = list(self.network.parameters())
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _part(checkpoint, "moments").items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = _laid_out_like(parameters[int(index)], tensor)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.average.load(_part(checkpoint, "average"))
        self.record.load(_part(checkpoint, "record"), self.step)

    def averaged_weights(self) -> dict[str, Tensor]:
        """The network's state with the average in place of each parameter; copies on the CPU."""
        state = {**self.network.state_dict(), **self.average.tensors()}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The same numbers in the parameter's memory format: the fused AdamW goes through memory and reads no strides."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _part(checkpoint: Checkpoint, part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in checkpoint.tensors.items() if name.startswith(prefix)}
