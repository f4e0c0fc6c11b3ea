"""The splits, and what can be held out of a source for validation and testing."""

from dataclasses import dataclass

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Named:
    """The split that the source itself has under this name."""

    name: str

    def __str__(self) -> str:
        """Return how params.yaml says it."""
        return self.name


@dataclass(frozen=True)
class Last:
    """The last ones of the source, in its order."""

    documents: int

    def __str__(self) -> str:
        """Return how params.yaml says it."""
        return f"{{last: {self.documents}}}"


@dataclass(frozen=True)
class LastCharacters:
    """The last characters of the source, wherever that cuts a document in two."""

    characters: int

    def __str__(self) -> str:
        """Return how params.yaml says it."""
        return f"{{last_characters: {self.characters}}}"


@dataclass(frozen=True)
class Chunks:
    """A share of the blocks that the token stream is cut into: neighbours, and so parts of one document, come apart."""

    share: float

    def __str__(self) -> str:
        """Return how params.yaml says it."""
        return f"{{chunks: {self.share}}}"


Held = float | Named | Last | LastCharacters | Chunks
"""What is held out; a number is a share of the keys."""

WITHIN_DOCUMENTS = "hold out {last_characters: N} or {chunks: 0.1}, which cut within documents"
"""The way out for text in too few documents."""
