"""Starting the processes of a run, by torchrun's own API: `mdpipe train` needs no other launcher.

On several machines `mdpipe train RUN` is started once on each, as `srun` does. Each must then be told how many there
are and where they meet, in the variables that torchrun reads: PET_NNODES, PET_RDZV_ENDPOINT and PET_RDZV_ID.
"""

import os
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mdpipe.training.interruption import INTERRUPTED, STATUS

NODES, ENDPOINT, MEETING = "PET_NNODES", "PET_RDZV_ENDPOINT", "PET_RDZV_ID"
HANDLED = "TORCHELASTIC_SIGNALS_TO_HANDLE"
POLL_SECONDS = 0.1


def launch(processes: int, command: Sequence[str]) -> None:
    """Run the command in so many processes, divided evenly among the machines, and wait for those that run here.

    Raises:
        ValueError: the machines cannot have equally many, or their number is none.
        SystemExit: a process failed; with its status, after the others have been ended. Or this one was asked to end,
            which it has passed on to them.
    """
    stated = os.environ.get(NODES, "1")
    if not stated.isdecimal() or not (nodes := int(stated)):
        raise ValueError(f"{NODES} = {stated!r} must be the number of machines, or be unset")
    if processes % nodes:
        raise ValueError(
            f"hardware.processes = {processes} cannot be divided evenly among {NODES} = {nodes} machines;"
            f" `unset {NODES}` for one machine"
        )
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes // nodes,
        run_id=os.environ.get(MEETING, "mdpipe"),
        rdzv_backend="c10d",
        rdzv_endpoint=os.environ.get(ENDPOINT, "localhost:0"),
        max_restarts=0,
        monitor_interval=POLL_SECONDS,
    )
    os.environ.setdefault(HANDLED, ",".join(["SIGHUP", *(number.name for number in STATUS)]))
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        # What went wrong, the process has said itself; torch's summary of it would only bury that.
        raise SystemExit(max(1, error.get_first_failure()[1].exitcode)) from None
    except SignalException as error:
        raise SystemExit(STATUS.get(error.sigval, INTERRUPTED)) from None
