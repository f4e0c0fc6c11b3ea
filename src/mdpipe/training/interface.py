"""Checks of a network before the first training step, since a user's own may break any rule of the interface.

Shapes: B batch, L length, D width, V vocabulary; token index V is the mask.
"""

import math
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdpipe.networks.base import Intercept, Network, build_uninitialized, fill_empty


@torch.no_grad()
def check_interface(network: Network) -> None:
    """Run a network, and its head on one position, on an example of masks, as it is and saved and loaded.

    The network has no gradients and is not changed, except that it is in training mode afterwards.

    Raises:
        ValueError: It fails, the shapes of its results are not (1, L, D) and (1, 1, V), it samples global random
            numbers, its state cannot be saved, or the loaded network has other results.
    """
    kind = f"network.kind = {network.config.kind}"
    before = _global_random_states()
    results = _results(network.eval())
    network.train()
    _require_no_shared_tensors(network)
    loaded = _save_and_load(network)
    loaded_results = _results(loaded.eval())  # Before the tensors are compared, since it may cache some.
    tensors, loaded_tensors = _unsaved_tensors(network), _unsaved_tensors(loaded)
    differing = [name for name in tensors if not _is_close(tensors[name], loaded_tensors.get(name))]
    _results(loaded.train(), as_in_training=True)
    if _global_random_states() != before:
        raise ValueError(
            f"the forward pass of {kind} samples global random numbers, so that a resumed run differs: for dropout, use"
            " `dropout` of mdpipe.networks.layers with `dropout_keys`, in place of nn.Dropout, torch.randn or np.random"
        )
    if differing or not all(map(_is_close, results, loaded_results)):
        which = f" ({', '.join(differing)})" if differing else ""
        raise ValueError(
            f"{kind} is another network when it is loaded from its weights: it has tensors{which} that are not saved,"
            " and that are random, or set by torch.nn.init or `init_weights`; register them as persistent buffers, by"
            " `self.register_buffer(NAME, TENSOR)`"
        )


def _results(network: Network, *, as_in_training: bool = False) -> tuple[Tensor, Tensor]:
    """Return hidden states (1, L, D) of masks at time 1, and logits (1, 1, V) of the first position.

    `as_in_training` passes class labels, and dropout keys if the network has dropout.
    """
    kind, vocab_size, length = network.config.kind, network.vocab_size, math.prod(network.shape)
    arguments: list[Any] = [torch.full((1, length), vocab_size), torch.ones(1, dtype=torch.float64), None]
    if as_in_training and network.num_classes:
        arguments[2] = torch.zeros(1, dtype=torch.int64)
    if as_in_training and network.dropout > 0:
        arguments.append(torch.zeros(1, 2, dtype=torch.int64))
    with _explain_failure(
        f"network.kind = {kind} fails on masks, which are token {vocab_size} of a vocabulary of {vocab_size}, at a"
        " float64 time"
    ):
        hidden = network(*arguments)
    if not isinstance(hidden, Tensor) or hidden.ndim != 3 or hidden.shape[:2] != (1, length):
        raise ValueError(f"network.kind = {kind} returns {_shape(hidden)}, not hidden states (1, {length}, D)")
    with _explain_failure(f"the head of network.kind = {kind} fails on hidden states (1, 1, {hidden.shape[2]})"):
        logits = network.head(hidden[:, :1])
    if not isinstance(logits, Tensor) or logits.shape != (1, 1, vocab_size):
        raise ValueError(
            f"the head of network.kind = {kind} returns {_shape(logits)}, not logits (1, 1, {vocab_size}) of all"
            " tokens but the mask"
        )
    return hidden, logits


def _require_no_shared_tensors(network: Network) -> None:
    """Require that no two saved tensors have the same memory, which safetensors refuses at the first checkpoint."""
    names: dict[int, str] = {}
    for name, tensor in network.state_dict().items():
        first = names.setdefault(tensor.untyped_storage().data_ptr(), name) if tensor.numel() else name
        if first != name:
            raise ValueError(
                f"network.kind = {network.config.kind} has one tensor under two names, {first} and {name}, which"
                " checkpoints do not hold: register a shared layer once, and call it where it is used again"
            )


def _save_and_load(network: Network) -> Network:
    """Return the network as it is after saving and loading; the parameters are the same memory."""
    parameters = dict(network.named_parameters())
    state = {name: tensor if name in parameters else tensor.clone() for name, tensor in network.state_dict().items()}
    with _explain_failure(f"network.kind = {network.config.kind} cannot be loaded from its weights"):
        with Intercept(fill_empty):  # Otherwise, unused memory may by chance have the values that it should be set to.
            loaded = build_uninitialized(network.spec, "cpu")
        loaded.load_state_dict(state, assign=True)
    return loaded


def _unsaved_tensors(network: Network) -> dict[str, Tensor]:
    """Return the buffers that are not saved, and the tensors that are plain attributes, by name."""
    saved = network.state_dict().keys()
    found = dict(network.named_buffers())
    for prefix, module in network.named_modules():
        found |= {f"{prefix}.{name}".lstrip("."): value for name, value in vars(module).items()}
    return {name: value for name, value in found.items() if isinstance(value, Tensor) and name not in saved}


def _is_close(first: Tensor, second: Tensor | None) -> bool:
    """Return True if there are two tensors that are equal up to rounding."""
    if second is None or first.shape != second.shape or first.dtype != second.dtype:
        return False
    return torch.allclose(first, second, rtol=1e-3, atol=1e-6, equal_nan=True)


def _global_random_states() -> bytes:
    numpy_state = np.random.get_state()  # noqa: NPY002 (of the networks that use it)
    return pickle.dumps((torch.get_rng_state().numpy(), numpy_state, random.getstate()))


def _shape(result: Any) -> str:
    return str(tuple(result.shape)) if isinstance(result, Tensor) else f"a {type(result).__name__}"


@contextmanager
def _explain_failure(problem: str) -> Iterator[None]:
    """Raise ValueError for any exception of a network's code, with the problem and the first line of its message."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{problem}: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
