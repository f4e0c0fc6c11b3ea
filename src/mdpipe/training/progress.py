"""The live log of a training run: a line every few seconds, to be followed with `tail -f`.

Nothing here goes into an artifact, since speeds differ from one run to the next.
"""

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mdpipe.memory import MEBIBYTE, peak_rss_mib
from mdpipe.training.peak import product_peak

if TYPE_CHECKING:
    from mdpipe.training.state import TrainingState

SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` of `steps` steps.

    `loss` is the mean since the last report in bits per unit (token or dimension), `largest_loss` the largest of a
    step, which tells a spike, and `gradient_norm` the mean before clipping.
    """

    step: int
    steps: int
    loss: float
    largest_loss: float
    gradient_norm: float
    learning_rate: float
    tokens_per_second: float
    flops_per_second: float
    """Of the network's dense products, forward and backward, over all positions."""
    share_of_peak: float
    """What that is of the machine's matrix product in the same precision (MFU)."""
    memory_mib: float
    """The most that this process has taken: of its GPU, else resident."""
    seconds_left: float
    learned: str
    """What the objective has learned, in a few words; empty for most."""

    def __str__(self) -> str:
        width = len(str(self.steps))
        learned = f"  {self.learned}" if self.learned else ""
        return (
            f"step {self.step:{width}d}/{self.steps}  {self.step / self.steps:4.0%}  loss {self.loss:.4f} bits"
            f" (up to {self.largest_loss:.3g})  {self.tokens_per_second:,.0f} tokens/s"
            f"  {_duration(self.seconds_left)} left  learning rate {self.learning_rate:.2e}"
            f"  gradient {self.gradient_norm:.3g}  {self.flops_per_second / 1e9:,.3g} GFLOP/s,"
            f" {self.share_of_peak:.0%} of peak  {self.memory_mib:,.0f} MiB{learned}"
        )


class Meter:
    """Times a run from the moment it is made, and says when a report is due.

    Args:
        state: of the run.
        steps: of the run.
        flops: of a token, as `training_flops` counts them.
        precision: of the network's products.
    """

    def __init__(self, state: "TrainingState", steps: int, flops: float, precision: str) -> None:
        self._state, self._steps, self._flops = state, steps, flops
        self._peak = product_peak(state.device, getattr(torch, precision))
        self._first_step = self._reported_step = state.step
        self._started = self._reported = time.monotonic()
        self._tokens = 0

    def count(self, tokens: int) -> None:
        """Take note of a step on so many tokens."""
        self._tokens += tokens

    def due(self) -> bool:
        """Whether the last report, or the start, is SECONDS_BETWEEN_LINES ago."""
        return time.monotonic() - self._reported >= SECONDS_BETWEEN_LINES

    def read(self, learning_rate: float) -> Progress:
        """The report now: the speed since the last one, the time left from the speed since the start."""
        now, state = time.monotonic(), self._state
        since = (self._reported_step, state.step)
        seconds_a_step = (now - self._started) / max(1, state.step - self._first_step)
        tokens_per_second = self._tokens / max(now - self._reported, 1e-9)
        flops_per_second = tokens_per_second * self._flops
        progress = Progress(
            step=state.step,
            steps=self._steps,
            loss=state.record.loss(*since),
            largest_loss=state.record.largest_loss(*since),
            gradient_norm=state.record.gradient_norm(*since),
            learning_rate=learning_rate,
            tokens_per_second=tokens_per_second,
            flops_per_second=flops_per_second,
            share_of_peak=flops_per_second / self._peak,
            memory_mib=peak_memory(state.device),
            seconds_left=seconds_a_step * (self._steps - state.step),
            learned=state.objective.learned(),
        )
        self._reported, self._tokens, self._reported_step = now, 0, state.step
        return progress


def peak_memory(device: torch.device) -> float:
    """MiB: of a GPU the most that tensors have held, of a CPU the process's largest resident set.

    Either is a high-water mark since the process began, and never falls: what is to be told apart must be measured in
    processes of its own.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    return peak_rss_mib()


def print_progress(progress: Progress) -> None:
    """Write the report as a line to the standard error."""
    print_line(str(progress))


def print_line(text: str) -> None:
    """Write a line to the standard error at once, whatever it is connected to."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
