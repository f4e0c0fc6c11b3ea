"""Processes: their memory, without torch, and workers that end with the process that started them."""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable

MEBIBYTE = 2**20
POLL_SECONDS = 0.5

EXIT_ORPHANED = 75
"""Exit status: EX_TEMPFAIL, try again."""


def peak_rss_mib(include_children: bool = False) -> float:
    """Return the largest resident set of this process so far in MiB; it never falls.

    Args:
        include_children: also consider the children that have ended, and return the largest of all.
    """
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) if include_children else (resource.RUSAGE_SELF,)
    largest = max(resource.getrusage(who).ru_maxrss for who in whose)
    return largest * (1 if sys.platform == "darwin" else 1024) / MEBIBYTE


def exit_with_parent(is_needed: Callable[[], bool] = lambda: True) -> None:
    """Exit at once, from a thread, when the parent has ended or the process is no longer needed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and is_needed():
            time.sleep(POLL_SECONDS)
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, daemon=True).start()
