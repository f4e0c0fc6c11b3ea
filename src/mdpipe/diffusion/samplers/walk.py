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
