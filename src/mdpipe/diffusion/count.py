"""Numbers that the host asks a device for before it needs them, so that the device has work while the host waits."""

from collections.abc import Callable

import torch
from torch import Tensor


def asked_for(number: Tensor) -> Callable[[], int]:
    """A number (), which its device is asked for now; the result is called where it is needed, and waits for it.

    Reading it there instead (`int(number)`) would have a GPU first finish all that it was given in between, and then
    stand idle until it is given something more.
    """
    if number.device.type != "cuda":
        return lambda: int(number)
    here = torch.empty((), dtype=number.dtype, pin_memory=True).copy_(number, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def known() -> int:
        arrived.synchronize()
        return int(here)

    return known
