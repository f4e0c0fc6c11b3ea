"""How a run is computed, the `hardware` of a run in params.yaml: what changes speed, and no more than last digits."""

from typing import Literal

from mdpipe.params.base import Positive, Section


class HardwareSettings(Section):
    """The machine's part in a training run.

    All of it is a param, since it decides how sums are taken, hence the bytes of the result.
    """

    precision: Literal["float32", "bfloat16"]
    """What the matrix products compute in; weights, averages and losses are float32 always."""
    threads: Positive
    """CPU threads."""
