"""Validation during training: the bound of a few held-out examples under the averaged weights.

Times and masks are the same at every step, so most of their noise cancels in differences between steps. The split is
evaluated as a whole, and with less variance, by the stage `evaluate`.

Shapes: N examples, L length, S Monte Carlo samples, V validations of a run.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.params.training import ValidationConfig

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Validation:
    """A bound after `step` steps in bits per token or dimension, and its standard error over the examples."""

    step: int
    value: float
    stderr: float


class Validator:
    """Evaluates averaged weights in a copy of the network, and keeps the best of them with `keep_best`.

    Args:
        network: Network of the run, before it is compiled or sharded.
        objective: Objective of the run.
        examples: (N, L) int64.
        class_labels: (N,) int64, or None.
        settings: Interval of validations, and their number of samples.
        steps: Steps of the run.
        rng: Source of the times and masks.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        examples: Tensor,
        class_labels: Tensor | None,
        settings: ValidationConfig,
        steps: int,
        rng: CounterRNG,
    ) -> None:
        self._network = copy.deepcopy(network).eval()
        self._objective = copy.deepcopy(objective).to(next(network.parameters()).device)
        self._examples, self._class_labels = examples, class_labels
        self._settings, self._rng = settings, rng
        self._steps = [*range(settings.every, steps, settings.every), steps]
        self._results = torch.full((len(self._steps), 2), math.nan, dtype=torch.float64)
        self._modules = nn.ModuleDict({"network": self._network, "objective": self._objective})
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
        bits_N = self._bits()
        result = Validation(step, bits_N.mean().item(), (bits_N.std() / math.sqrt(len(bits_N))).item())
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
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._modules.state_dict().items()}

    @torch.inference_mode()
    def _bits(self) -> Tensor:
        """Return the bound of each example in bits per token, (N,) float64; sample s has a time in stratum s of S."""
        device, length = next(self._network.parameters()).device, self._examples.shape[1]
        objective = self._objective
        num_samples = 1 if objective.is_exact else self._settings.num_mc_samples
        bits = []
        for first in range(0, len(self._examples), self._settings.batch_size):
            rows = torch.arange(first, min(first + self._settings.batch_size, len(self._examples)))
            x0 = self._examples[rows].to(device)
            labels = None if self._class_labels is None else self._class_labels[rows].to(device)
            total = x0.new_zeros(len(rows), dtype=torch.float64)
            for sample in range(num_samples):
                u = self._rng.uniform(sample, rows.to(device), 1 + length)
                t = (sample + u[:, 0]) / num_samples
                total += objective.checked_elbo(cast("Denoiser", self._network), x0, t, u[:, 1:], labels).total
            bits.append(total.cpu() / (num_samples * length * math.log(2)))
        return torch.cat(bits)
