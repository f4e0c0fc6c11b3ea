"""The live log of a training run: a line every few seconds, to be followed with `tail -f`.

Nothing here goes into an artifact, since speeds differ from one run to the next.
"""

import sys
import time
from dataclasses import dataclass

SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` of `steps` steps.

    `loss` is the mean since the last report in bits per unit (token or dimension).
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        width = len(str(self.steps))
        return (
            f"step {self.step:{width}d}/{self.steps}  {self.step / self.steps:4.0%}  loss {self.loss:.4f} bits"
            f"  {self.tokens_per_second:,.0f} tokens/s  {_duration(self.seconds_left)} left"
            f"  learning rate {self.learning_rate:.2e}"
        )


class Meter:
    """Times a run from the moment it is made, and says when a report is due."""

    def __init__(self, step: int, steps: int) -> None:
        self._first_step, self._steps = step, steps
        self._started = self._reported = time.monotonic()
        self._tokens = 0
        self.reported_step = step

    def count(self, tokens: int) -> None:
        """Take note of a step on so many tokens."""
        self._tokens += tokens

    def due(self) -> bool:
        """Whether the last report, or the start, is SECONDS_BETWEEN_LINES ago."""
        return time.monotonic() - self._reported >= SECONDS_BETWEEN_LINES

    def read(self, step: int, loss: float, learning_rate: float) -> Progress:
        """The report after `step` steps: the speed since the last one, the time left from the speed since the start."""
        now = time.monotonic()
        seconds_a_step = (now - self._started) / max(1, step - self._first_step)
        progress = Progress(
            step=step,
            steps=self._steps,
            loss=loss,
            learning_rate=learning_rate,
            tokens_per_second=self._tokens / max(now - self._reported, 1e-9),
            seconds_left=seconds_a_step * (self._steps - step),
        )
        self._reported, self._tokens, self.reported_step = now, 0, step
        return progress


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
