"""How a process that runs networks is set up."""

from mdpipe.networks.determinism import make_deterministic
from mdpipe.networks.memory import keep_freed_memory


def set_up_process(threads: int) -> None:
    """Have the process compute the same bytes each time, on so many CPU threads, in memory that it keeps.

    Call it before the first computation, on a CPU as on a GPU.
    """
    make_deterministic(threads)
    keep_freed_memory()
