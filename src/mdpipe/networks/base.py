"""The interface of a network, and how one is built from its configuration.

Shapes: B batch, L length, D width, V vocabulary; token index V is the mask.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdpipe.params.kinds import Configurable, implementation
from mdpipe.params.networks import NetworkConfig


class Network(Configurable, nn.Module, ABC):
    """Base class of all denoisers.

    Args:
        config: Settings.
        vocab_size: Number of real tokens V, without the mask.
        shape: (L,) for text or (H, W, C) for images.
        num_classes: Number of classes to condition on; 0 for an unconditional network.
        causal: Whether each position depends only on itself and earlier ones.

    Its submodule `head` maps hidden states (..., D) to logits (..., V) over the real tokens, without the mask.
    """

    def __init__(
        self,
        config: NetworkConfig,
        vocab_size: int,
        shape: tuple[int, ...],
        *,
        num_classes: int = 0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if causal and not config.can_be_causal:
            raise ValueError(f"network.kind = {config.kind} sees every position at once and cannot be causal")
        if not (config.takes_images if len(shape) == 3 else config.takes_text):
            taken = "images of shape (height, width, channels)" if config.takes_images else "text of shape (length,)"
            raise ValueError(f"network.kind = {config.kind} takes {taken}, not {shape}")
        if num_classes and not config.takes_classes:
            raise ValueError(f"network.kind = {config.kind} takes no classes, not {num_classes}")
        patch = config.patch_size
        if len(shape) == 3 and (shape[0] % patch or shape[1] % patch):
            raise ValueError(f"network.kind = {config.kind} takes patches of {patch} x {patch} pixels, not {shape}")
        self.config = config
        self.vocab_size = vocab_size
        self.shape = shape
        self.num_classes = num_classes
        self.causal = causal
        self.dropout = config.dropout

    @abstractmethod
    def init_weights(self, generator: torch.Generator) -> None:
        """Initialize all weights from the generator only.

        Initialize the head to zeros to start from equal logits, that is a loss of log V.
        """

    @abstractmethod
    def forward(
        self, tokens: Tensor, t: Tensor, class_labels: Tensor | None = None, dropout_keys: Tensor | None = None
    ) -> Tensor:
        """Compute hidden states (B, L, D).

        Args:
            tokens: (B, L) int64 from 0 to V, where V is the mask.
            t: (B,) times in [0, 1]; a network without time conditioning ignores them.
            class_labels: (B,) int64 from 0 to num_classes, where num_classes means "no class", or None for "no class"
                in every example.
            dropout_keys: (B, 2) int64 keys of this step's dropout masks (see `mdpipe.networks.dropout`), or None for
                no dropout.

        Returns:
            (B, L, D).
        """


def get_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network, the units of sharding, compilation and activation checkpointing.

    These are the modules in the `nn.ModuleList`s that are direct children of the network.
    """
    return [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def build_network(
    config: NetworkConfig,
    vocab_size: int,
    shape: tuple[int, ...],
    *,
    seed: int,
    num_classes: int = 0,
    causal: bool = False,
) -> Network:
    """Build a network on the CPU, in training mode; its initial weights are a function of the arguments.

    What `init_weights` does not set keeps PyTorch's own initialization, sampled with a generator of the seed.

    Args:
        config: Settings.
        vocab_size: Number of real tokens, without the mask.
        shape: (L,) for text or (H, W, C) for images.
        seed: Seed of the initial weights.
        num_classes: Number of classes to condition on; 0 for an unconditional network.
        causal: Whether each position may depend only on itself and earlier ones.

    Raises:
        ValueError: The kind does not support the shape, classes or `causal`, or nothing sets some of its weights.
    """
    digest = hashlib.sha256(f"{seed}:initial weights".encode()).digest()
    own_seed = int.from_bytes(digest[:8], "little")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), _EmptyIsNaN():
        torch.default_generator.manual_seed(own_seed)
        network: Network = implementation(config)(config, vocab_size, shape, num_classes=num_classes, causal=causal)
    network.init_weights(torch.Generator().manual_seed(own_seed))
    if unset := [name for name, tensor in network.state_dict().items() if tensor.isnan().any()]:
        raise ValueError(
            f"nothing sets the initial values of {', '.join(unset)} in network.kind = {config.kind}; set them in its"
            " `init_weights`"
        )
    return network


def build_uninitialized(
    config: NetworkConfig,
    vocab_size: int,
    shape: tuple[int, ...],
    *,
    num_classes: int = 0,
    causal: bool = False,
    device: str = "meta",
) -> Network:
    """Build a network without initial weights: on the CPU to load weights into, on the meta device for its shapes only.

    The other arguments are those of `build_network`. On the meta device tensors have neither memory nor values.

    Raises:
        ValueError: The kind does not support the shape, classes or `causal`.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device), _SkipInit():
        network: Network = implementation(config)(config, vocab_size, shape, num_classes=num_classes, causal=causal)
    return network


class _EmptyIsNaN(TorchFunctionMode):
    """Fill the memory that torch.empty returns, so that weights which nothing initializes are found."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.fill_(math.nan) if func is torch.empty and result.is_floating_point() else result


class _SkipInit(TorchFunctionMode):
    """Skip torch.nn.init: values are loaded, or there are none, and normal_ on meta tensors loads torch._dynamo."""

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
