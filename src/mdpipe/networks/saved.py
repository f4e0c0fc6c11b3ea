"""A network as a folder: model.safetensors, its weights, and network.json, what to build to put them in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mdpipe.data.artifacts.typed_json import Header, read_typed_json
from mdpipe.networks.base import Network
from mdpipe.networks.build import empty_network

WEIGHTS = "model.safetensors"
DESCRIPTION = "network.json"
CURE = "train it again: `dvc repro train@RUN`"

Positive = Annotated[int, Field(ge=1)]


class Description(Header):
    """network.json."""

    kind: str
    vocabulary: Positive
    """Number of real tokens."""
    shape: tuple[Positive] | tuple[Positive, Positive, Positive]
    """(L,) for text, (H, W, C) for pictures."""
    classes: Annotated[int, Field(ge=0)]
    causal: bool
    settings: dict[str, Any]
    """The other keys of the run's `network` in params.yaml."""


def save_network(
    directory: Path,
    state: Mapping[str, Tensor],
    kind: str,
    vocabulary: int,
    shape: tuple[int, ...],
    settings: Mapping[str, Any],
    *,
    classes: int = 0,
    causal: bool = False,
) -> None:
    """Write both files into a folder that exists; equal arguments give equal bytes.

    Args:
        directory: the folder.
        state: weights by name, as `state_dict` has them.
        kind: as `build_network` takes it, like all that follow.
        vocabulary: number of real tokens.
        shape: (L,) or (H, W, C).
        settings: the other keys of the run's `network` in params.yaml.
        classes: number of classes.
        causal: whether a position may only depend on those up to it.
    """
    description = {
        "kind": kind,
        "vocabulary": vocabulary,
        "shape": list(shape),
        "classes": classes,
        "causal": causal,
        "settings": dict(settings),
    }
    text = json.dumps(description, sort_keys=True, indent=2) + "\n"
    (directory / DESCRIPTION).write_text(text, encoding="utf-8")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, directory / WEIGHTS)


def read_description(directory: Path) -> Description:
    """Return network.json of a folder that `save_network` wrote.

    Raises:
        ValueError: it is missing or broken, or a key is not what it should be.
    """
    return read_typed_json(directory / DESCRIPTION, Description, CURE)


def load_network(directory: Path) -> Network:
    """The network of a folder that `save_network` wrote, on the CPU.

    Raises:
        ValueError: a file is missing or broken, or the two do not belong together.
    """
    described = read_description(directory)
    try:
        network = empty_network(
            described.kind,
            described.vocabulary,
            described.shape,
            classes=described.classes,
            causal=described.causal,
            **described.settings,
        )
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        path = directory / DESCRIPTION
        raise ValueError(f"{path} does not describe a network ({_first_line(error)}); {CURE}") from error
    network.load_state_dict(read_weights(directory / WEIGHTS, network.state_dict(), CURE), assign=True)
    return network


def read_weights(path: Path, expected: Mapping[str, Tensor], cure: str) -> dict[str, Tensor]:
    """Read tensors that have the names, shapes and types of those expected, and finite values.

    Raises:
        ValueError: they have not; the message names the file and a tensor and ends with `cure`.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} does not hold weights ({_first_line(error)}); {cure}") from error
    for name in sorted(expected.keys() ^ state.keys()):
        problem = "is missing" if name in expected else "has no place in it"
        raise ValueError(f"{path} does not hold the weights that {DESCRIPTION} asks for: {name} {problem}; {cure}")
    for name, tensor in state.items():
        found, wanted = (f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (tensor, expected[name]))
        if found != wanted:
            raise ValueError(f"{path} holds {name} as {found} where {wanted} is expected; {cure}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path} holds numbers that are not finite in {name}; {cure}")
    return state


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
