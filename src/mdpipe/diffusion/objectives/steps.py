"""The steps of a finite-time bound: T of them, from time 1 down to time 0."""

from torch import Tensor, nn

from mdpipe.diffusion.grids import GRIDS


class Steps(nn.Module):
    """A grid of T steps from t(i) to s(i) = t(i - 1), i = 1 to T, with t(0) = 0 and t(T) = 1.

    Raises:
        ValueError: fewer than one step, or a grid that does not exist.
    """

    def __init__(self, timesteps: int, grid: str) -> None:
        super().__init__()
        if timesteps < 1:
            raise ValueError(f"diffusion.timesteps must be at least 1, or null for continuous time, not {timesteps}")
        if grid not in GRIDS:
            raise ValueError(f"diffusion.grid is {grid!r}; it must be one of {', '.join(sorted(GRIDS))}")
        self.count = timesteps
        self.times: Tensor
        self.register_buffer("times", GRIDS[grid](timesteps), persistent=False)

    def drawn(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """The ends s and t, each (B,), of the step i = floor(time T) + 1: of each step with probability 1 / T."""
        index = (time * self.count).long().clamp(max=self.count - 1)
        return self.times[index], self.times[index + 1]
