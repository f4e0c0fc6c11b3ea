"""Training metrics: the history that a run keeps, and the metrics that it logs every few seconds.

Shapes: P parameters.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mdpipe.params.training import TrainConfig
from mdpipe.training.optimizer import learning_rate_at
from mdpipe.training.performance import get_peak_memory_mib, measure_peak_flops
from mdpipe.training.validation import Validation

if TYPE_CHECKING:
    from mdpipe.training.state import TrainingState

MIN_ROWS = 200
"""Rows of a history: at least this many and at most twice as many, or one per step in short runs."""
MAX_NAMES = 3
"""Parameters that an error names, out of perhaps hundreds."""
LOG_SECONDS = 5.0
"""Interval between logged metrics."""


class NonFiniteLossError(ValueError):
    """The loss or the gradient of a step was infinite or NaN."""


@dataclass(frozen=True)
class HistoryRow:
    """Metrics of the steps since the previous row, up to number `step` (counted from 1).

    `loss` (bits per token or dimension) and `grad_norm` (before clipping) are means; `lr` is the last step's.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float


class MetricsHistory:
    """Loss (nats per token) and gradient norm of every step, on the device, and the names of all P parameters.

    Recording does not synchronize the device; reading does, so it is only done now and then.
    """

    def __init__(self, settings: TrainConfig, device: torch.device, names: Sequence[str]) -> None:
        self._settings, self._names = settings, names
        self._first_bad_step = torch.full((len(names),), settings.steps, device=device)
        self._losses = torch.zeros(settings.steps, device=device)
        self._grad_norms = torch.zeros(settings.steps, device=device)
        self._checked = 0

    def record(self, step: int, loss: Tensor, grad_norm: Tensor, parameter_norms: Tensor) -> None:
        """Record step k: its loss (), its gradient's norm (), and the gradient norm of each parameter (P,)."""
        self._losses[step] = loss.detach()
        self._grad_norms[step] = grad_norm
        self._first_bad_step.clamp_(max=torch.where(parameter_norms.isfinite(), self._settings.steps, step))

    def require_finite(self, steps: int) -> None:
        """Check the steps since the last check, up to `steps`.

        Raises:
            NonFiniteLossError: A loss or gradient is not finite; the message names the parameters.
        """
        is_finite = self._losses[:steps].isfinite() & self._grad_norms[:steps].isfinite()
        bad = (~is_finite[self._checked :]).nonzero()
        if len(bad):
            step = self._checked + int(bad[0])
            names = [self._names[index] for index in (self._first_bad_step <= step).nonzero().flatten().tolist()]
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            advice = (
                "Lower train.learning_rate, lengthen train.warmup_steps or set train.max_grad_norm."
                if step
                else "No update came before it: look at the network and its initial weights."
            )
            where = f"Parameters with non-finite gradients: {', '.join(names[:MAX_NAMES])}{more}. " if names else ""
            raise NonFiniteLossError(
                f"step {step + 1} of {self._settings.steps}: the loss is {self._losses[step].item()} and the gradient"
                f" norm {self._grad_norms[step].item()}, at the learning rate"
                f" {learning_rate_at(step, self._settings):.3g}. {where}The last good checkpoint is kept. {advice}"
            )
        self._checked = steps

    def summarize(self, first: int, end: int) -> tuple[float, float, float]:
        """Return mean and maximum loss, in bits per token, and mean gradient norm of steps first, ..., end - 1."""
        losses, grad_norms = self._losses[first:end].double(), self._grad_norms[first:end].double()
        return float(losses.mean()) / math.log(2), float(losses.max()) / math.log(2), float(grad_norms.mean())

    def rows(self) -> list[HistoryRow]:
        """Return the history of the whole run."""
        steps = self._settings.steps
        interval = max(1, steps // MIN_ROWS)
        ends = [*range(interval, steps, interval), steps]
        rows = []
        for first, end in zip([0, *ends], ends, strict=False):
            loss, _, grad_norm = self.summarize(first, end)
            rows.append(HistoryRow(end, loss, learning_rate_at(end - 1, self._settings), grad_norm))
        return rows

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        return {"losses": self._losses, "grad_norms": self._grad_norms}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], steps: int) -> None:
        """Restore the history of the first `steps` steps, which were checked before the checkpoint was saved."""
        self._losses.copy_(state_dict["losses"])
        self._grad_norms.copy_(state_dict["grad_norms"])
        self._checked = steps


@dataclass(frozen=True)
class TrainMetrics:
    """Metrics of a run after `step` of `steps` steps, since the last log. They depend on the speed of the machine.

    Attributes:
        scalars: Numbers by their tags in loggers, see `MetricsProcessor.compute`.
        objective: The learned parameters of the objective, in a few words; empty for most.
    """

    step: int
    steps: int
    scalars: dict[str, float]
    objective: str = ""
    validation: Validation | None = None

    def __str__(self) -> str:
        width = len(str(self.steps))
        end = f"  {self.objective}" if self.objective else ""
        if self.validation:
            end += f"  validation {self.validation.value:.4f} ± {self.validation.stderr:.4f} bits"
        value = {tag.partition("/")[2]: scalar for tag, scalar in self.scalars.items() if "validation" not in tag}
        return (
            f"step {self.step:{width}d}/{self.steps}  {self.step / self.steps:4.0%}  loss {value['loss']:.4f} bits"
            f" (max {value['max_loss']:.3g})  lr {value['lr']:.2e}  grad_norm {value['grad_norm']:.3g}"
            f"  {value['tokens_per_sec']:,.0f} tokens/s  {value['flops_per_sec'] / 1e9:,.3g} GFLOP/s"
            f"  MFU {value['mfu']:.0%}  {value['peak_mem_mib']:,.0f} MiB  {_format_duration(value['eta_s'])} left"
            f"{end}"
        )


class MetricsProcessor:
    """Measures throughput and computes the metrics to log; `flops` is per token, of forward and backward pass."""

    def __init__(self, state: "TrainingState", steps: int, flops: float, precision: str) -> None:
        self._state, self._steps, self._flops = state, steps, flops
        self._peak_flops = measure_peak_flops(state.device, getattr(torch, precision))
        self._first_step = self._logged_step = state.step
        self._started = self._logged = time.monotonic()
        self._tokens = 0

    def add_tokens(self, tokens: int) -> None:
        """Count the tokens of a step."""
        self._tokens += tokens

    def is_due(self) -> bool:
        """Return True if the last log, or the start, was LOG_SECONDS ago."""
        return time.monotonic() - self._logged >= LOG_SECONDS

    def compute(self, lr: float, validation: Validation | None = None) -> TrainMetrics:
        """Return the metrics since the last call, with the estimated time left from the speed since the start."""
        now, state = time.monotonic(), self._state
        loss, max_loss, grad_norm = state.history.summarize(self._logged_step, state.step)
        seconds_per_step = (now - self._started) / max(1, state.step - self._first_step)
        tokens_per_sec = self._tokens / max(now - self._logged, 1e-9)
        flops_per_sec = tokens_per_sec * self._flops
        scalars = {
            "train/loss": loss,  # in bits per token or dimension
            "train/max_loss": max_loss,  # of a step, which shows spikes
            "train/lr": lr,  # of the last step
            "train/grad_norm": grad_norm,  # before clipping
            "perf/tokens_per_sec": tokens_per_sec,  # of all processes
            "perf/flops_per_sec": flops_per_sec,  # of forward and backward pass, with the head at every position
            "perf/mfu": flops_per_sec / self._peak_flops,  # as a fraction of the matmul peak in the same precision
            "perf/peak_mem_mib": get_peak_memory_mib(state.device),  # of this process
            "perf/eta_s": seconds_per_step * (self._steps - state.step),
        }
        if validation:
            scalars |= {"validation/loss": validation.value, "validation/stderr": validation.stderr}
        objective = ", ".join(f"{name} {value:.3g}" for name, value in state.objective.extra_metrics().items())
        self._logged, self._tokens, self._logged_step = now, 0, state.step
        return TrainMetrics(state.step, self._steps, scalars, objective, validation)


def _format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
