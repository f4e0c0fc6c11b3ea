"""D3PM with an absorbing state (Austin et al., 2021): the bound in T steps, trained with an auxiliary cross entropy."""

from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.md4 import AbsorbingObjective, masked_token_loss
from mdpipe.diffusion.time_grids import DiscreteTime
from mdpipe.params.diffusion import D3PMConfig


class D3PM(AbsorbingObjective, config=D3PMConfig):
    """MD4's bound in T steps, with a loss whose gradient is that of

        bound + auxiliary * sum over masked n of -log mu^n(x_t, t)[x_0^n]

    The second term does not weight small times more. The loss has the value of the bound, without this term. The
    original code scales the bound by 1 / T, so its coefficient of 0.001 is 0.001 T here.
    """

    def __init__(self, config: D3PMConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.auxiliary = config.auxiliary
        self.discrete_time = DiscreteTime(config.timesteps, "uniform")

    @property
    def estimator(self) -> str:
        """Return the name of the bound."""
        return "d3pm bound"

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return one draw of the bound, (B,), with the gradient of the auxiliary term added to its own."""
        t, weight = self.time_and_weight(t)
        x_t = self.q_sample(x0, t, u)
        cross_entropy = masked_token_loss(self, model, x_t, t, class_labels, x0)
        auxiliary = self.auxiliary * cross_entropy
        return self.add_boundary_terms(weight * cross_entropy, x0.shape[1]).total + auxiliary - auxiliary.detach()
