"""Training state: everything that the next step depends on, converted to and from a checkpoint's named tensors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.params.training import TrainConfig
from mdpipe.training.checkpoint import Checkpoint
from mdpipe.training.distributed import full_tensor, is_sharded
from mdpipe.training.metrics import MetricsHistory
from mdpipe.training.optimizer import EMA, build_optimizers
from mdpipe.training.validation import Validator


class TrainingState:
    """Weights of network and objective, their EMA, the optimizers' state, history and validations of `step` steps.

    There is no random state: randomness is a function of the seed and the step.

    Attributes:
        parameters: Parameters of the network, followed by those of the objective.
        num_network_parameters: Number of `parameters` that are the network's.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, settings: TrainConfig, validator: Validator | None = None
    ) -> None:
        self.device = next(network.parameters()).device
        self.step = 0
        self.network = network
        self.objective = objective.to(self.device)
        self.optimizers = build_optimizers(network, objective, settings)
        ema_start = int(settings.ema_start * settings.steps)
        self.ema = EMA(network, settings.ema_decay, ema_start)
        self.objective_ema = EMA(objective, settings.ema_decay, ema_start)
        prefixed = [(f"objective.{name}", parameter) for name, parameter in objective.named_parameters()]
        named = dict([*network.named_parameters(), *prefixed])
        self.parameters = list(named.values())
        self.num_network_parameters = len(list(network.parameters()))
        self.history = MetricsHistory(settings, self.device, list(named))
        self.validator = validator

    def to_checkpoint(self) -> Checkpoint:
        """Return the current state, sharded with FSDP2. Its tensors are live: save them before the next step."""
        optimizer_state = {
            f"{number}.{index}.{name}": tensor
            for number, optimizer in enumerate(self.optimizers)
            for index, state in optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        parts = {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": optimizer_state,
            "ema": self.ema.state_dict(),
            "objective_ema": self.objective_ema.state_dict(),
            "history": self.history.state_dict(),
            "validation": {} if self.validator is None else self.validator.state_dict(),
        }
        named = {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        return Checkpoint(self.step, named)

    def sharding_template(self) -> Callable[[str], Tensor]:
        """Return a function from a checkpoint's tensor name to its live tensor, or to the parameter of a moment."""
        live = dict(self.to_checkpoint().tensors)
        for number, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            live |= {f"optimizer/{number}.{index}": parameter for index, parameter in enumerate(parameters)}
        return lambda name: live[name.rpartition(".")[0] if name.startswith("optimizer/") else name]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state from a checkpoint of the same run."""
        template = self.sharding_template()

        def part(name: str) -> dict[str, Tensor]:
            tensors = {key: tensor for key, tensor in checkpoint.tensors.items() if key.startswith(f"{name}/")}
            return {key.removeprefix(f"{name}/"): _reshard_like(template(key), tensors[key]) for key in tensors}

        self.step = checkpoint.step
        self.network.load_state_dict(part("network"))
        self.objective.load_state_dict(part("objective"))
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.optimizers]
        for key, tensor in part("optimizer").items():
            number, index, name = key.split(".")
            states[int(number)].setdefault(int(index), {})[name] = tensor
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.ema.load_state_dict(part("ema"))
        self.objective_ema.load_state_dict(part("objective_ema"))
        self.history.load_state_dict(part("history"), self.step)
        if self.validator is not None:
            self.validator.load_state_dict(part("validation"))

    def ema_state_dicts(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the state dicts of network and objective with the EMA as parameters: full copies on the CPU."""
        network = self.network.state_dict() | self.ema.state_dict()
        objective = self.objective.state_dict() | self.objective_ema.state_dict()
        weights, objective_weights = (
            {name: full_tensor(tensor.detach()).to("cpu", copy=True) for name, tensor in state.items()}
            for state in (network, objective)
        )
        return weights, objective_weights


def _reshard_like(template: Tensor, tensor: Tensor) -> Tensor:
    """Return the values sharded and strided like the template: the fused AdamW ignores strides."""
    if tensor.shape != template.shape:
        return tensor
    if is_sharded(template):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor.to(template.device), template.device_mesh, template.placements)
    return torch.empty_like(template, requires_grad=False).copy_(tensor)
