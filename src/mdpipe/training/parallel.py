"""One step's loss as a module, and what makes its gradient the mean over all processes: DDP or FSDP2."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import get_blocks
from mdpipe.networks.dropout import DenoiserWithDropout, SupportsDropout
from mdpipe.training.world import World

if TYPE_CHECKING:
    from mdpipe.params import HardwareSettings


class Loss(nn.Module):
    """The losses of examples, from network and objective together: both have weights whose gradients are shared."""

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(
        self,
        tokens: Tensor,
        time: Tensor,
        uniforms: Tensor,
        condition: Tensor | None,
        dropout_keys: Tensor | None,
    ) -> Tensor:
        """Compute `Objective.loss`, (B,); `dropout_keys` is (B, 2), or None if the network drops nothing."""
        denoiser = cast("Denoiser", self.network)
        if dropout_keys is not None:
            denoiser = DenoiserWithDropout(cast("SupportsDropout", self.network), dropout_keys)
        return self.objective.loss(denoiser, tokens, time, uniforms, condition)


def parallel(loss: Loss, hardware: "HardwareSettings", world: World) -> nn.Module:
    """The loss for all processes to call, each on its rows: after backward every gradient is the mean over them.

    With FSDP2 the weights of `loss` itself become shares of the whole (DTensor), so build the optimizer after this. A
    process in no group is left alone; one that torchrun has put into a group of one takes the way of many.
    """
    if not distributed.is_initialized():
        return loss
    if hardware.strategy == "ddp":
        return DistributedDataParallel(loss)
    mesh = init_device_mesh(next(loss.parameters()).device.type, (world.size,))
    for layer in get_blocks(loss.network):  # Each is gathered by itself, just before it is needed.
        fully_shard(layer, mesh=mesh)
    fully_shard(loss, mesh=mesh)
    return loss


@contextmanager
def micro_batch(loss: nn.Module, last: bool) -> Iterator[None]:
    """Around a forward and backward pass: gradients add up here, and are shared among the processes in the last one."""
    if isinstance(loss, DistributedDataParallel) and not last:
        with loss.no_sync():
            yield
        return
    if isinstance(loss, FSDPModule):
        loss.set_requires_gradient_sync(last)
    yield


def mean_over(world: World, value: Tensor) -> Tensor:
    """The mean of a number over all processes, left on its device."""
    if world.size > 1:
        distributed.all_reduce(value)
        value = value / world.size
    return value


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or, of one that is spread over the processes, all of it; all of them must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_spread(tensors: Iterable[Tensor]) -> bool:
    """Whether any of the tensors lies in parts with several processes."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def part_here(tensor: Tensor) -> Tensor:
    """The tensor itself, or, of one that is spread over the processes, the part that this one has."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def norm_of_parts(norms: Tensor) -> Tensor:
    """The norms of whole tensors from those of their parts, in one exchange; all processes must call this."""
    squares = norms.square()
    distributed.all_reduce(squares)
    return squares.sqrt()
