"""What is measured of sampling. Without torch, so that a process that only starts others stays small."""

from dataclasses import dataclass
from typing import ClassVar

KINDS = ("ancestral", "two_stage", "reveal_first", "first_hitting")
"""Samplers that draw from one distribution, up to the grid, and so differ in nothing but cost."""

STEADY = ("ancestral", "two_stage")
"""Those that run the whole network at every position in every step, whatever is masked: all steps cost the same."""

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Configuration:
    """A sampler, what it has to fill, and the network and the machine's part that it may use.

    The network is a transformer that is not told the time, under the linear schedule.

    Raises:
        ValueError: a sampler or type that cannot be measured, or a number below 1.
    """

    sampler: str
    batch: int
    length: int
    vocabulary: int
    steps: int
    """T, over a uniform grid; the first-hitting sampler has no use for it."""
    steady_steps: int
    """Where all steps cost the same, a walk of only so many, spread evenly from time 1 to 0, stands for all T."""
    layers: int
    heads: int
    width: int
    repeats: int
    """Walks timed, each with noise of its own."""
    threads: int
    device: str
    dtype: str
    """Of the network; samplers draw in float64."""
    seed: int

    def __post_init__(self) -> None:
        if self.sampler not in KINDS:
            raise ValueError(f"--sampler must be one of {', '.join(KINDS)}, not {self.sampler!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        for name, value in vars(self).items():
            if isinstance(value, int) and name != "seed" and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")

    program: ClassVar[str] = "mdpipe.benchmarks.sampling"
    """The module that measures it."""

    @property
    def title(self) -> str:
        """What it is called where it could not be measured."""
        return f"sampler {self.sampler} at batch {self.batch}"

    @property
    def steps_in_all(self) -> int:
        """Steps of the walk that the speed is reported for."""
        return self.length if self.sampler == "first_hitting" else self.steps

    @property
    def steps_measured(self) -> int:
        """Steps of the walk that is timed."""
        return min(self.steady_steps, self.steps) if self.sampler in STEADY else self.steps_in_all
