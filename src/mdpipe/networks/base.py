"""The interface of a network, how one is built from its configuration, and how it is saved and loaded.

A saved network is a folder with the weights, model.safetensors, and the configuration, network.json.

Shapes: B batch, L length, D width, V vocabulary; token index V is the mask.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdpipe.data.artifacts.files import Header, first_problem, read_header
from mdpipe.params.networks import NetworkConfig
from mdpipe.params.registry import Configurable

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "network.json"
HINT = "train it again: `dvc repro train@RUN`"

Shape = tuple[int, ...]
"""(L,) for text or (H, W, C) for images."""


@dataclass(frozen=True)
class NetworkSpec:
    """The arguments of a network's constructor, which are all that its structure depends on."""

    config: NetworkConfig
    """Settings."""
    vocab_size: int
    """Number of real tokens V, without the mask."""
    shape: Shape
    num_classes: int = 0
    """Number of classes to condition on; 0 for an unconditional network."""
    causal: bool = False
    """True if each position depends only on itself and earlier ones."""

    def construct(self) -> "Network":
        """Call the constructor.

        Raises:
            ValueError: The kind does not support the shape, classes or `causal`.
        """
        return Network.build(self.config, self.vocab_size, self.shape, num_classes=self.num_classes, causal=self.causal)


class Network(Configurable, nn.Module, ABC):
    """Base class of all denoisers; the arguments are the fields of `NetworkSpec`."""

    head: Any
    """Maps hidden states (..., D) to logits (..., V) over the real tokens, without the mask."""

    def __init__(
        self, config: NetworkConfig, vocab_size: int, shape: Shape, *, num_classes: int = 0, causal: bool = False
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
        self.spec = NetworkSpec(config, vocab_size, shape, num_classes, causal)
        self.config = config
        self.vocab_size = vocab_size
        self.shape = shape
        self.num_classes = num_classes
        self.causal = causal
        self.dropout: float = getattr(config, "dropout", 0.0)

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
            t: (B,) float64 times in [0, 1], to be converted to the dtype of the weights; a network without time
                conditioning ignores them.
            class_labels: (B,) int64 from 0 to num_classes, where num_classes means "no class", or None for "no class"
                in every example.
            dropout_keys: (B, 2) int64 keys of this step's dropout masks (see `mdpipe.networks.layers`), or None for
                no dropout.

        Returns:
            (B, L, D).
        """

    def attention_size(self, length: int) -> tuple[int, int] | None:  # noqa: ARG002
        """Return the number of positions and the total width of attention, which give the FLOPs of `length` tokens.

        None if the FLOPs are counted by running the network.
        """
        return None


@dataclass(frozen=True)
class DenoiserWithDropout:
    """The denoiser of one training step: a network together with the step's dropout keys.

    A network called without this wrapper applies no dropout, whether or not it is in training mode.
    """

    network: Network
    keys: Tensor
    """(B, 2) int64 words below 2^32."""

    def __call__(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """Compute hidden states (B, L, D)."""
        hidden: Tensor = self.network(tokens, t, class_labels, self.keys)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Compute logits (..., V) with the network's head."""
        logits: Tensor = self.network.head(hidden)
        return logits


def get_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network: the units of sharding, compilation and activation checkpointing, and Muon's.

    These are the modules in the `nn.ModuleList`s that are direct children of the network; the attention in the middle
    of a U-Net is not among them.
    """
    return [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def build_network(spec: NetworkSpec, seed: int) -> Network:
    """Build a network on the CPU, in training mode; its initial weights are a function of the arguments.

    What `init_weights` does not set keeps PyTorch's own initialization, sampled with a generator of the seed.

    Raises:
        ValueError: The kind does not support the shape, classes or `causal`, or nothing sets some of its weights.
    """
    digest = hashlib.sha256(f"{seed}:initial weights".encode()).digest()
    own_seed = int.from_bytes(digest[:8], "little")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), Intercept(fill_empty):
        torch.default_generator.manual_seed(own_seed)
        network = spec.construct()
    network.init_weights(torch.Generator().manual_seed(own_seed))
    if unset := [name for name, tensor in network.state_dict().items() if tensor.isnan().any()]:
        raise ValueError(
            f"nothing sets the initial values of {', '.join(unset)} in network.kind = {spec.config.kind}; set them in"
            " its `init_weights`"
        )
    return network


def build_uninitialized(spec: NetworkSpec, device: str = "meta") -> Network:
    """Build a network without initial weights: on the CPU to load weights into, on the meta device for its shapes only.

    On the meta device tensors have neither memory nor values.

    Raises:
        ValueError: The kind does not support the shape, classes or `causal`.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device), Intercept(_skip_init):
        return spec.construct()


class NetworkHeader(Header):
    """Content of network.json: the fields of a `NetworkSpec`."""

    kind: str
    vocab_size: PositiveInt
    shape: tuple[PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt
    causal: bool
    settings: dict[str, Any]
    """The other keys of `network` in params.yaml."""

    @property
    def spec(self) -> NetworkSpec:
        """Return the arguments of the network.

        Raises:
            ValidationError: The settings break a rule.
        """
        config = NetworkConfig.parse({"kind": self.kind, **self.settings})
        return NetworkSpec(config, self.vocab_size, self.shape, self.num_classes, self.causal)


def save_pretrained(directory: Path, network: Network, state: Mapping[str, Tensor]) -> None:
    """Write model.safetensors and network.json; equal arguments give equal bytes.

    Args:
        directory: An existing folder.
        network: The network.
        state: State dict to save, the network's own or an average; its tensors may be on any device.
    """
    settings = network.config.model_dump()
    header: dict[str, Any] = {"kind": settings.pop("kind"), "settings": settings, **vars(network.spec)}
    del header["config"]
    text = json.dumps(header, sort_keys=True, indent=2) + "\n"
    (directory / CONFIG_NAME).write_text(text, encoding="utf-8")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, directory / WEIGHTS_NAME)


def from_pretrained(directory: Path) -> Network:
    """Load a network that `save_pretrained` wrote, on the CPU and in training mode.

    Raises:
        ValueError: A file is missing or broken, or the two do not match.
    """
    header = read_config(directory)
    path = directory / CONFIG_NAME
    try:
        network = build_uninitialized(header.spec, "cpu")
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else _first_line(error)
        raise ValueError(f"{path} does not describe a network ({problem}); {HINT}") from error
    network.load_state_dict(load_weights(directory / WEIGHTS_NAME, network.state_dict(), HINT), assign=True)
    return network


def read_config(directory: Path) -> NetworkHeader:
    """Read network.json from a folder that `save_pretrained` wrote.

    Raises:
        ValueError: The file is missing or broken, or a key has the wrong type.
    """
    return read_header(directory / CONFIG_NAME, NetworkHeader, HINT)


def load_weights(path: Path, expected: Mapping[str, Tensor], hint: str) -> dict[str, Tensor]:
    """Load the tensors of a safetensors file and validate them.

    Args:
        path: The file.
        expected: Tensors with the names, shapes and dtypes that the file must have; their values are not used.
        hint: Remedy for a wrong file, the end of the error message.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        ValueError: The file is unreadable, names, shapes or dtypes differ, or values are not finite. The message names
            the file and the first such tensor.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} does not contain weights ({_first_line(error)}); {hint}") from error
    for name in sorted(expected.keys() ^ state.keys()):
        problem = "lacks" if name in expected else "holds the unexpected"
        raise ValueError(f"{path} {problem} {name}; {hint}")
    for name, tensor in state.items():
        found, wanted = (f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (tensor, expected[name]))
        if found != wanted:
            raise ValueError(f"{path} holds {name} as {found} where {wanted} is expected; {hint}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path} holds values that are not finite in {name}; {hint}")
    return state


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


class Intercept(TorchFunctionMode):
    """Call `replacement` with every function of torch within the block, and with its arguments."""

    def __init__(self, replacement: Callable[..., Any]) -> None:
        super().__init__()
        self._replacement = replacement

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self._replacement(func, *args, **(kwargs or {}))


def fill_empty(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Fill the memory that torch.empty returns, so that weights which nothing initializes are found."""
    result = func(*args, **kwargs)
    return result.fill_(math.nan) if func is torch.empty and result.is_floating_point() else result


def _skip_init(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Skip torch.nn.init: values are loaded, or there are none, and normal_ on meta tensors loads torch._dynamo."""
    if getattr(func, "__module__", None) == "torch.nn.init":
        return args[0] if args else kwargs["tensor"]
    return func(*args, **kwargs)
