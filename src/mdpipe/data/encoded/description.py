"""The types of dataset.json."""

from typing import Annotated, Literal

from pydantic import Field

from mdpipe.data.artifacts.typed_json import Header

Positive = Annotated[int, Field(ge=1)]


class Description(Header):
    """dataset.json; `EncodedDataset` says what its keys mean."""

    modality: Literal["text", "image"]
    tokenizer: str
    vocabulary: Positive
    shape: tuple[Positive] | tuple[Positive, Positive, Positive]
    length: Positive
    classes: Annotated[int, Field(ge=0)]
    blocks: bool
    block_ends: tuple[Annotated[int, Field(ge=0)], ...]
    splits: dict[str, dict[str, int]]
    """The counts of each split."""
    class_names: tuple[str, ...] = ()
