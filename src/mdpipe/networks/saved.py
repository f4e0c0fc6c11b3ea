"""A network as a folder: model.safetensors, its weights, and network.json, what to build to put them in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mdpipe.networks.base import Network
from mdpipe.networks.build import empty_network

WEIGHTS = "model.safetensors"
DESCRIPTION = "network.json"
CURE = "train it again: `dvc repro train@RUN`"


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


def load_network(directory: Path) -> Network:
    """The network of a folder that `save_network` wrote, on the CPU.

    Raises:
        ValueError: a file is missing or broken, or the two do not belong together.
    """
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        network = empty_network(
            description["kind"],
            description["vocabulary"],
            tuple(description["shape"]),
            classes=description["classes"],
            causal=description["causal"],
            **description["settings"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not describe a network ({error}); {CURE}") from error
    path = directory / WEIGHTS
    try:
        state = load_file(path)
        network.load_state_dict(state, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights that {DESCRIPTION} asks for ({error}); {CURE}") from error
    not_finite = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if not_finite:
        raise ValueError(f"{path} holds numbers that are not finite in {', '.join(not_finite)}; {CURE}")
    return network
