"""Networks by the name that params.yaml gives them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mdpipe.kinds import find_kind
from mdpipe.networks.base import Network


def build_network(
    kind: str,
    vocabulary: int,
    shape: tuple[int, ...],
    *,
    seed: int,
    classes: int = 0,
    causal: bool = False,
    **settings: Any,
) -> Network:
    """A network on the CPU with initial weights that depend on nothing but these arguments.

    Args:
        kind: the name of its file.
        vocabulary: number of real tokens; the mask comes on top.
        shape: (L,) of a sequence or (H, W, C) of a picture.
        seed: of the initial weights.
        classes: number of classes that an example may be of; 0 for a network that takes no condition.
        causal: whether a position may only depend on those up to it.
        settings: the other keys of the run's `network` in params.yaml.

    Raises:
        ValueError: there is no such kind, or the kind does not take the shape or the settings, or cannot be causal.
    """
    network = empty_network(kind, vocabulary, shape, classes=classes, causal=causal, **settings)
    network.to_empty(device="cpu")
    digest = hashlib.sha256(f"{seed}:initial weights".encode()).digest()
    network.initialise(torch.Generator().manual_seed(int.from_bytes(digest[:8], "little")))
    return network


def empty_network(
    kind: str, vocabulary: int, shape: tuple[int, ...], *, classes: int = 0, causal: bool = False, **settings: Any
) -> Network:
    """The same network on the meta device: shapes and counts without memory.

    Raises:
        ValueError: as `build_network`.
    """
    network = find_kind("mdpipe.networks", kind, Network, "network.kind")
    with torch.device("meta"), _SkipInitialization():
        return network(vocabulary, shape, classes=classes, causal=causal, **settings)


def parameter_count(network: nn.Module) -> int:
    """Number of weights that are trained."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


class _SkipInitialization(TorchFunctionMode):
    """Skip torch.nn.init: weights without memory have no values, and normal_ on them takes seconds (torch._dynamo)."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
