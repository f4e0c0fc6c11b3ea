"""Graceful interruption: SIGTERM or SIGUSR1 from a scheduler before it takes the machine away, or Ctrl-C.

The current step is finished and a checkpoint written, from which the same command resumes.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_REQUEUE = 75
"""Exit status after SIGTERM and SIGUSR1: EX_TEMPFAIL. workflow/job.py then runs the stage again."""

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell. The stage is not run again, since a person has stopped it."""

EXIT_STATUS = {signal.SIGTERM: EXIT_REQUEUE, signal.SIGUSR1: EXIT_REQUEUE, signal.SIGINT: EXIT_INTERRUPTED}


class InterruptedTrainingError(Exception):
    """Training was interrupted by a signal before its last step; its checkpoint is written.

    Attributes:
        status: exit status of the process.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class SignalState:
    """The first signal received. A second Ctrl-C ends the process at once.

    Attributes:
        status: exit status for the signal, or 0 if none was received.
    """

    def __init__(self) -> None:
        self.status = 0

    def handle(self, number: int, _: FrameType | None) -> None:
        """Record a signal."""
        self.status = self.status or EXIT_STATUS[signal.Signals(number)]
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def handle_signals() -> Iterator[SignalState]:
    """Record signals within the block instead of ending; do nothing outside the main thread, which gets none."""
    state = SignalState()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before = {number: signal.signal(number, state.handle) for number in EXIT_STATUS}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
