"""Being asked to end: a scheduler's SIGTERM or SIGUSR1 before it takes the machine away, or a person's Ctrl-C.

The step that is under way is finished and a checkpoint written, from which the same command goes on.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TRY_AGAIN = 75
"""Exit status after SIGTERM and SIGUSR1: EX_TEMPFAIL, which workflow/job.py answers by running the stage again."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell has it: whoever asked for an end does not want another start."""

STATUS = {signal.SIGTERM: TRY_AGAIN, signal.SIGUSR1: TRY_AGAIN, signal.SIGINT: INTERRUPTED}


class InterruptedTrainingError(Exception):
    """Training ended before its last step because it was asked to; its checkpoint is written.

    Attributes:
        status: what the process should exit with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Interruption:
    """The first signal that came in; a second one of Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.status = 0
        """Exit status that the signal asks for; 0 while none has come."""

    def take_note(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        self.status = self.status or STATUS[signal.Signals(number)]
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def noted() -> Iterator[Interruption]:
    """Take note of signals within the block instead of ending by them; in a thread, which gets none, do nothing."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.take_note) for number in STATUS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
