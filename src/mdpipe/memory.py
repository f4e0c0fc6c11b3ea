"""The memory of processes, without torch."""

import resource
import sys

MEBIBYTE = 2**20


def peak_rss_mib(include_children: bool = False) -> float:
    """Return the largest resident set of this process so far in MiB; it never falls.

    Args:
        include_children: also consider the children that have ended, and return the largest of all.
    """
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) if include_children else (resource.RUSAGE_SELF,)
    largest = max(resource.getrusage(who).ru_maxrss for who in whose)
    return largest * (1 if sys.platform == "darwin" else 1024) / MEBIBYTE
