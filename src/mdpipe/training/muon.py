"""Muon and NorMuon: momentum with orthogonalized updates, for the matrices and convolutions of a network's layers.

Shapes: N matrices of one shape, R rows, C columns.
"""

import inspect
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from mdpipe.training.distributed import full_tensor, is_sharded, to_local

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c of the quintic a x + b x^3 + c x^5 (Jordan et al. 2024): steep at 0, and between 0.68 and 1.20 after
enough steps."""
STEPS = 5
MIN_NORM = 1e-7
"""Lower bound on the norm that a matrix is divided by."""
ROW_EPS = 1e-8
"""Added to a row's root mean square in NorMuon."""
RMS = 0.2
"""Approximate root mean square of AdamW's updates (Liu et al. 2025, arXiv:2502.16982, section 2.2)."""
MAX_ASPECT_RATIO = 1.5
"""Columns per row up to which the plain iteration takes fewer products than the one on Gram matrices."""


class EagerOptimizer(torch.optim.Optimizer):
    """An optimizer whose methods do not load torch's compiler, which takes longer to start than short trainings run.

    In torch.optim, the first call of these methods imports torch._dynamo only to exclude them from compilation.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class Muon(EagerOptimizer):
    r"""Muon with Nesterov momentum and decoupled weight decay, its updates scaled to the size of AdamW's.

    With the gradient G, the learning rate r, the momentum mu and the weight decay d, each step is

        B <- mu B + (1 - mu) G
        W <- (1 - r d) W - 0.2 sqrt(max(R, C)) r orthogonalize(mu B + (1 - mu) G)

    (K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024,
    https://kellerjordan.github.io/posts/muon/; the scale by Liu et al. 2025, arXiv:2502.16982). It is
    torch.optim.Muon with adjust_lr_fn="match_rms_adamw", except for the number format: that one orthogonalizes in
    bfloat16 everywhere, which most CPUs emulate. This one takes float32 on a CPU, so that all CPUs agree, and bfloat16
    on a GPU, where it orthogonalizes matrices of one shape together.

    The kernels of a convolution are a matrix with one row per output channel (R) and C = input channels x height x
    width columns.

    A sharded matrix (FSDP2) is gathered once per step, and every process orthogonalizes all of it.

    With cautious weight decay only the entries of W decay whose update points towards 0, or is 0.
    """

    def __init__(
        self, params: Iterable[dict[str, object]], lr: float, momentum: float, weight_decay: float, **options: object
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "cautious_weight_decay": False}
        super().__init__(params, defaults | options)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update the parameters from their gradients."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                directions = map(_gather, self._directions(parameters, group["momentum"]), parameters)
                matrices = [direction.flatten(1) for direction in directions]
                pairs = zip(parameters, orthogonalize_together(matrices), strict=True)
                orthogonal = [self._normalize(parameter, matrix, group) for parameter, matrix in pairs]
                updates = list(map(_shard, [matrix.view(shape) for matrix in orthogonal], parameters))
                weights = [to_local(parameter) for parameter in parameters]
                decay = group["lr"] * group["weight_decay"]
                if group["cautious_weight_decay"]:
                    decay_cautiously(weights, updates, decay)
                else:
                    torch._foreach_mul_(weights, 1 - decay)
                torch._foreach_add_(weights, updates, alpha=-RMS * max(matrices[0].shape) ** 0.5 * group["lr"])

    def _normalize(self, parameter: nn.Parameter, matrix: Tensor, group: dict[str, Any]) -> Tensor:  # noqa: ARG002
        """Return the orthogonalized matrix (R, C), or another of about the same norm, min(R, C)^0.5."""
        return matrix

    def _directions(self, parameters: list[nn.Parameter], momentum: float) -> list[Tensor]:
        """Update the momentum and return what is orthogonalized, local shards for sharded parameters."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [to_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        buffers = [to_local(self.state[parameter]["momentum_buffer"]) for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, buffers, momentum))


class NorMuon(Muon):
    r"""NorMuon (Li et al. 2025, arXiv:2510.05491): Muon whose rows take steps of about equal size over time.

    With O the orthogonalized matrix of Muon, v a number per row, at first 0, and the rate beta2, each step is

        v <- beta2 v + (1 - beta2) mean over columns of O^2
        O' = O / (sqrt(v) + 1e-8)
        W <- (1 - r d) W - 0.2 sqrt(R C) r O' / |O'|

    Every update has a root mean square of 0.2, as Muon's has. Without memory, beta2 = 0, all rows get the same norm.
    beta2 is the argument `row_beta2`.
    """

    def _normalize(self, parameter: nn.Parameter, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """Divide rows by their root mean square over time, and restore the norm of an orthogonal matrix.

        Every process has the state of all rows of a sharded matrix, which is small.
        """
        state = self.state[parameter]
        if "row_mean_square" not in state:
            state["row_mean_square"] = matrix.new_zeros(len(matrix))
        mean_square: Tensor = state["row_mean_square"]
        mean_square.lerp_(matrix.square().mean(dim=1), 1 - group["row_beta2"])
        rows = matrix / (mean_square.sqrt() + ROW_EPS)[:, None]
        scale: Tensor = min(matrix.shape) ** 0.5 / rows.norm().clamp(min=MIN_NORM)
        return rows * scale


def decay_cautiously(weights: Sequence[Tensor], updates: Sequence[Tensor], decay: float) -> None:
    """Multiply by 1 - decay the weights w that the step w - update moves towards 0, or leaves: update w >= 0.

    (Chen et al. 2025, arXiv:2510.12402.) Signs are compared, since products of small numbers are 0.
    """
    for weight, update in zip(weights, updates, strict=True):
        is_decayed = weight.sign() * update.sign() >= 0
        weight.mul_(1 - decay * is_decayed.to(weight.dtype))


def orthogonalize(matrix: Tensor) -> Tensor:
    r"""Return p(X / |X|), close to U V^T where X = U S V^T is the singular value decomposition.

    p is the quintic x -> (a I + b G + c G^2) x with G = x x^T, iterated five times. It acts on the singular values
    only, and moves all but the smallest to between 0.68 and 1.20. Of an n x m matrix with n <= m, an iteration takes
    2 m / n + 1 products of n x n matrices. In float32 and with m > 1.5 n there is a cheaper way to the same result. All
    polynomials of one G commute, so

        P_k = a I + b G_k + c G_k^2,   G_{k+1} = P_k G_k P_k,   x_5 = P_4 P_3 P_2 P_1 P_0 x_0

    takes 2 m / n + 17 products in all instead of 10 m / n + 5. G has the squares of the singular values: in float32
    this costs up to three digits of the smallest, and bfloat16 has too few digits for it.

    Shapes: matrix and result (R, C), or (N, R, C) of several.
    """
    if matrix.shape[-2] > matrix.shape[-1]:
        return orthogonalize(matrix.transpose(-2, -1)).transpose(-2, -1)
    a, b, c = COEFFICIENTS
    add_product = torch.addmm if matrix.ndim == 2 else torch.baddbmm
    x: Tensor = matrix / matrix.norm(dim=(-2, -1), keepdim=True).clamp(min=MIN_NORM)
    if x.dtype != torch.float32 or x.shape[-1] <= MAX_ASPECT_RATIO * x.shape[-2]:
        for _ in range(STEPS):
            gram = x @ x.mT
            x = add_product(x, add_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram = x @ x.mT
    factors: list[Tensor] = []
    for step in range(STEPS):
        factors.append(add_product(gram, gram, gram, beta=b, alpha=c))
        factors[-1].diagonal(dim1=-2, dim2=-1).add_(a)
        if step < STEPS - 1:
            gram = factors[-1] @ (gram @ factors[-1])
    return reduce(torch.matmul, reversed(factors)) @ x


def orthogonalize_together(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalize matrices of one shape in the device's number format: bfloat16 on a GPU, otherwise float32."""
    dtype = matrices[0].dtype
    if matrices[0].device.type == "cuda":
        return list(orthogonalize(torch.stack(list(matrices)).bfloat16()).to(dtype))
    # One by one, since larger batches leave a CPU's caches.
    return [orthogonalize(matrix.float()).to(dtype) for matrix in matrices]


def _gather(direction: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return the full tensor of which `direction` is the local shard, sharded like the parameter."""
    if not is_sharded(parameter):
        return direction
    from torch.distributed.tensor import DTensor

    mesh, placements = parameter.device_mesh, parameter.placements
    return full_tensor(
        DTensor.from_local(direction, mesh, placements, shape=parameter.shape, stride=parameter.stride())
    )


def _shard(update: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return the local shard of a full update, sharded like the parameter."""
    if not is_sharded(parameter):
        return update
    from torch.distributed.tensor import DTensor, Replicate

    replicated = DTensor.from_local(update, parameter.device_mesh, [Replicate()])
    return to_local(replicated.redistribute(placements=parameter.placements))
