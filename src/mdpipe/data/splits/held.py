"""The splits, and what can be held out of a source for validation and testing."""

from dataclasses import dataclass

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Named:
    """The split that the source itself has under this name."""

    name: str


@dataclass(frozen=True)
class Last:
    """The last ones of the source, in its order."""

    documents: int


@dataclass(frozen=True)
class LastCharacters:
    """The last characters of the source, wherever that cuts a document in two."""

    characters: int


@dataclass(frozen=True)
class Chunks:
    """A share of the blocks that the token stream is cut into: neighbours, and so parts of one document, come apart."""

    share: float


Held = float | Named | Last | LastCharacters | Chunks
"""What is held out; a number is a share of the keys."""
