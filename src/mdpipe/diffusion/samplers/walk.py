"""The walk from time 1, where all is masked, to time 0 over a grid, one step from t to s < t after the other."""

from dataclasses import dataclass

from torch import Tensor

from mdpipe.diffusion.grids import build_grid
from mdpipe.diffusion.samplers.base import AnySchedule, Sampler
from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class GridSampler(Sampler[AnySchedule]):
    """A sampler that stops at the times of a grid.

    Raises:
        ValueError: there is no such grid, or no step.
    """

    steps: int
    grid: str

    def __post_init__(self) -> None:
        build_grid(self.grid, self.steps)

    @property
    def times(self) -> Tensor:
        """(steps + 1,) float64, falling from 1 to 0."""
        return build_grid(self.grid, self.steps).flip(0)

    def walk(self, schedule: Schedule) -> list["Step"]:
        """The steps over the grid, then one more at time 0 for the tokens that the schedule leaves masked there.

        A schedule with alpha(0) = 1 leaves none.
        """
        times = self.times
        alphas = [*schedule.alpha(times).tolist(), 1.0]
        steps = [Step(*step) for step in zip(times.tolist(), alphas[:-1], alphas[1:], strict=True)]
        return steps if alphas[-2] < 1 else steps[:-1]


DECODES = ("sample", "argmax")


@dataclass(frozen=True)
class PaperSampler(GridSampler[AnySchedule]):
    """One of the paper's samplers, which treat the tokens left masked at time 0 in one of two ways.

    `decode: sample` draws them, like all others. The samples then have exactly the distribution of the reverse process.
    `decode: argmax` takes the likeliest token for each, as the official implementation does after the last step of any
    of its samplers. With the schedules' epsilon of 1e-4 that is one token in 10,000: 0.1 of a sequence of 1024.

    Raises:
        ValueError: as every sampler on a grid, or another `decode`.
    """

    decode: str = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decode not in DECODES:
            raise ValueError(f"sample.sampler.decode is {self.decode!r}; it must be one of {', '.join(DECODES)}")

    def takes_mode(self, step: "Step") -> bool:
        """Return whether masked tokens become the likeliest ones in this step: the extra one at time 0."""
        return step.time == 0 and self.decode == "argmax"


@dataclass(frozen=True)
class Step:
    """From t to s < t; alpha(s) = 1 in the last, after which nothing is masked."""

    time: float
    """t, which the denoiser is told."""
    alpha_t: float
    alpha_s: float

    @property
    def share(self) -> float:
        """Probability (alpha(s) - alpha(t)) / (1 - alpha(t)) that a masked token is revealed."""
        return (self.alpha_s - self.alpha_t) / (1 - self.alpha_t)
