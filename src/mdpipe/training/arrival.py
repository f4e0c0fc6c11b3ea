"""In which order the way back from the loss reaches the parameters: what is not finite spreads in that order."""

from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor, nn


class Arrivals:
    """The order of the first backward pass in which parameters 0, ..., P - 1 get their gradients.

    Those nearest to the loss are first, whatever the order in which a network names them. Where FSDP2 spreads them, the
    parameters of one layer arrive together, in the layer's order.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._places: dict[int, int] = {}
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._note, index))  # type: ignore[no-untyped-call]
            for index, parameter in enumerate(parameters)
        ]

    def _note(self, index: int, _: Tensor) -> None:
        self._places.setdefault(index, len(self._places))

    def end(self) -> None:
        """After a backward pass: its order holds for all, and is noted no more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def ordered(self, indices: Iterable[int]) -> list[int]:
        """These parameters, the one nearest to the loss first; those that never got a gradient are last."""
        return sorted(indices, key=lambda index: self._places.get(index, len(self._places)))
