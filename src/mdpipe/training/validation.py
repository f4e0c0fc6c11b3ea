"""Validation during training: the bound of a few held-out examples under the averaged weights.

Times and masks are the same at every step, so most of their noise cancels in differences between steps. The split is
evaluated as a whole by the stage `evaluate`, with the same estimator.

Shapes: V validations of a run.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.params.training import ValidationConfig

StateDict = Mapping[str, Tensor]
BoundEstimate = Callable[[Objective, nn.Module], tuple[float, float]]
"""Returns the bound of the validation examples in bits per token or dimension, and its standard error."""


@dataclass(frozen=True)
class Validation:
    """A bound after `step` steps in bits per token or dimension, and its standard error, as in evaluation."""

    step: int
    value: float
    stderr: float


class Validator:
    """Evaluates averaged weights in a copy of the network, and keeps the best of them with `keep_best`.

    Args:
        network: Network of the run, before it is compiled or sharded.
        estimate: A function of the weights only: it has the same examples, times and masks in every call.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, estimate: BoundEstimate, settings: ValidationConfig, steps: int
    ) -> None:
        self._network = copy.deepcopy(network).eval()
        self._objective = copy.deepcopy(objective).to(next(network.parameters()).device)
        self._estimate, self._settings = estimate, settings
        self._steps = [*range(settings.every, steps, settings.every), steps]
        self._results = torch.full((len(self._steps), 2), math.nan, dtype=torch.float64)
        self._best = self._weights() if settings.keep_best else {}

    @property
    def validations(self) -> list[Validation]:
        """Return the results so far."""
        results = zip(self._steps, self._results.tolist(), strict=True)
        return [Validation(step, *result) for step, result in results if not math.isnan(result[0])]

    def is_due(self, step: int) -> bool:
        """Return True after the steps at which the run is validated."""
        return step in self._steps

    def validate(self, step: int, weights: StateDict, objective_weights: StateDict) -> Validation:
        """Evaluate the averaged weights after `step` steps, and keep them if they are the best so far."""
        self._network.load_state_dict(weights)
        self._objective.load_state_dict(objective_weights)
        result = Validation(step, *self._estimate(self._objective, self._network))
        if self._settings.keep_best and not any(past.value <= result.value for past in self.validations):
            self._best = self._weights()
        self._results[self._steps.index(step)] = torch.tensor([result.value, result.stderr], dtype=torch.float64)
        return result

    def best_weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """Return the state dicts of network and objective with the lowest bound; None without `keep_best`."""
        if not self._best:
            return None
        network, objective = (
            {name.removeprefix(part): tensor for name, tensor in self._best.items() if name.startswith(part)}
            for part in ("network.", "objective.")
        )
        return network, objective

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        return {"results": self._results, **{f"best/{name}": tensor for name, tensor in self._best.items()}}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore the results and the best weights."""
        self._results.copy_(state_dict["results"])
        self._best = {name: state_dict[f"best/{name}"].cpu() for name in self._best}

    def _weights(self) -> dict[str, Tensor]:
        modules = nn.ModuleDict({"network": self._network, "objective": self._objective})
        return {name: tensor.to("cpu", copy=True) for name, tensor in modules.state_dict().items()}
