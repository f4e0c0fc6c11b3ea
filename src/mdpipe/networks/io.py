"""Save and load networks: a folder with the weights, model.safetensors, and the configuration, network.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mdpipe.data.artifacts.files import Header, first_problem, read_header
from mdpipe.networks.base import Network, build_uninitialized
from mdpipe.params.networks import NetworkConfig

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "network.json"
HINT = "train it again: `dvc repro train@RUN`"


class NetworkHeader(Header):
    """Content of network.json: the arguments of `build_network`, but for the seed."""

    kind: str
    vocab_size: PositiveInt
    """Number of real tokens, without the mask."""
    shape: tuple[PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt]
    """(L,) for text, (H, W, C) for images."""
    num_classes: NonNegativeInt
    """Number of classes; 0 for an unconditional network."""
    causal: bool
    settings: dict[str, Any]
    """The other keys of `network` in params.yaml."""

    @property
    def config(self) -> NetworkConfig:
        """Return the network's settings.

        Raises:
            ValidationError: They break a rule.
        """
        return NetworkConfig.parse({"kind": self.kind, **self.settings})


def save_pretrained(
    directory: Path,
    state: Mapping[str, Tensor],
    config: NetworkConfig,
    vocab_size: int,
    shape: tuple[int, ...],
    *,
    num_classes: int = 0,
    causal: bool = False,
) -> None:
    """Write model.safetensors and network.json; equal arguments give equal bytes.

    Args:
        directory: An existing folder.
        state: State dict of the network; its tensors may be on any device.
        config: Settings of the network.
        vocab_size: Number of real tokens, without the mask.
        shape: (L,) for text or (H, W, C) for images.
        num_classes: Number of classes; 0 for an unconditional network.
        causal: Whether each position depends only on itself and earlier ones.
    """
    header = {
        "kind": config.kind,
        "vocab_size": vocab_size,
        "shape": list(shape),
        "num_classes": num_classes,
        "causal": causal,
        "settings": config.model_dump(exclude={"kind"}),
    }
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
        network = build_uninitialized(
            header.config,
            header.vocab_size,
            header.shape,
            num_classes=header.num_classes,
            causal=header.causal,
            device="cpu",
        )
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
        hint: What to do about a wrong file, the end of the error message.

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
        problem = "is missing" if name in expected else "is unexpected"
        raise ValueError(f"{path} does not match {CONFIG_NAME}: {name} {problem}; {hint}")
    for name, tensor in state.items():
        found, wanted = (f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (tensor, expected[name]))
        if found != wanted:
            raise ValueError(f"{path} holds {name} as {found} where {wanted} is expected; {hint}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path} holds values that are not finite in {name}; {hint}")
    return state


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
