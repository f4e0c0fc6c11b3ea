"""What a network is told beside its tokens: the time, the class of what it denoises, the sum of both, or nothing."""

import torch
from torch import Tensor, nn

from mdpipe.networks.time import TIME_WIDTH, TimeEmbedding


class ClassEmbedding(nn.Embedding):
    """A learnt vector (width,) for each class, and one more, the last, for "no class"."""

    def __init__(self, classes: int, width: int = TIME_WIDTH) -> None:
        super().__init__(classes + 1, width)

    @property
    def no_class(self) -> int:
        """The label that stands for it."""
        return self.num_embeddings - 1


def told(
    of_time: TimeEmbedding | None,
    of_class: ClassEmbedding | None,
    tokens: Tensor,
    time: Tensor,
    condition: Tensor | None,
) -> Tensor | None:
    """of_time(time) + of_class(condition), (B, width), without what the network does not have; None if it has neither.

    No condition means "no class" for every example. Labels are compared with the number of classes only where they lie
    in the CPU's memory: on a GPU that would hold up every call, and the embedding's kernel stops there by itself.

    Args:
        of_time: the network's embedding of times, if it has one.
        of_class: its embedding of classes, if it has one.
        tokens: (B, L).
        time: (B,).
        condition: (B,) int64 labels up to the number of classes, which is "no class", or None.

    Raises:
        ValueError: a condition for a network without classes, or one that is not a label an example.
    """
    if of_class is None:
        if condition is not None:
            raise ValueError("a network built with classes = 0 takes no condition")
        return None if of_time is None else of_time(time)
    if condition is None:
        condition = torch.full(tokens.shape[:1], of_class.no_class, device=tokens.device)
    _check(condition, len(tokens), of_class.no_class)
    class_embedding: Tensor = of_class(condition)
    return class_embedding if of_time is None else of_time(time) + class_embedding


def _check(condition: Tensor, examples: int, no_class: int) -> None:
    if condition.dtype != torch.int64 or condition.shape != (examples,):
        raise ValueError(
            f"the condition is {condition.dtype} {tuple(condition.shape)}; it must be one int64 label for each of the"
            f" {examples} examples"
        )
    if condition.device.type == "cpu" and not ((condition >= 0) & (condition <= no_class)).all():
        raise ValueError(
            f"the condition has labels from {condition.min()} to {condition.max()}; a network built with classes ="
            f" {no_class} takes 0 to {no_class}, the last of which means no class"
        )
