"""Memory that tensors leave behind stays with the process, for the tensors of the next step."""

import ctypes

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""glibc's names for how many blocks come straight from the system, and from which size on free memory goes back."""


def keep_freed_memory() -> None:
    """Have the C library hand out large blocks again instead of giving them back to the system, for the whole process.

    Otherwise every large tensor is made of pages that the system must first find and clear, a tenth of a training step
    and more. The process then holds on to the most memory that it ever took. Where the C library is not glibc nothing
    happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have none, Windows has no such library.
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, -1)
