"""D3PM with an absorbing state (Austin et al., 2021): the bound in T steps, trained with an auxiliary cross entropy."""

from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Schedule


class D3PM(MD4):
    """MD4's bound in T steps. The loss descends on

        bound + auxiliary * sum over masked n of -log mu^n(x_t, t)[x_0^n]

    whose second term does not weigh small times more; its value, as reported, is the bound alone. Their code scales
    the bound by 1 / T, so its coefficient of 0.001 is 0.001 T here.

    Args:
        schedule: gives alpha.
        vocabulary: V.
        timesteps: T.
        auxiliary: what the cross entropy is multiplied by.
        grid: the spacing of the steps.

    Raises:
        ValueError: a negative `auxiliary`, fewer than one step, or a grid that does not exist.
    """

    def __init__(
        self, schedule: Schedule, vocabulary: int, *, timesteps: int, auxiliary: float, grid: str = "uniform"
    ) -> None:
        super().__init__(schedule, vocabulary, timesteps=timesteps, grid=grid)
        if not auxiliary >= 0:
            raise ValueError(f"diffusion.auxiliary must not be negative, and it is {auxiliary}")
        self.auxiliary = auxiliary

    @property
    def estimator(self) -> str:
        """The bound in T steps."""
        return "d3pm bound"

    def loss(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """The bound's draw, with the gradient of the auxiliary term on top of its own."""
        weight, entropies = self.weighed(denoiser, tokens, time, uniforms, condition)
        auxiliary = self.auxiliary * entropies
        return self.with_ends(weight * entropies, tokens.shape[1]).total + auxiliary - auxiliary.detach()
