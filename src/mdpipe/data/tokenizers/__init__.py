"""Tokenizers: text to ids and back, with a separator to put after each document."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.stable_json import read_json
from mdpipe.data.tokenizers.span import Span


class Tokenizer(Protocol):
    """Text to ids in 0..vocabulary-1 and back.

    Shapes: ids are int64 (n,).
    """

    @property
    def kind(self) -> str:
        """Its name in params.yaml."""

    @property
    def vocabulary(self) -> int:
        """Number of ids, the separator's included."""

    @property
    def separator(self) -> tuple[int, ...]:
        """The ids put after each document."""

    @property
    def joint(self) -> tuple[int, ...]:
        """The ids between two parts of a text that was cut at white space, where encoding drops that."""

    @property
    def unknown(self) -> int | None:
        """The id that stands for what has no id, if there is one."""

    @property
    def lossless(self) -> bool:
        """Whether decode(encode(text)) is the text, for every text that UTF-8 can hold."""

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of a text, without a separator."""

    def encode_span(self, text: str, *, begins: bool) -> Span:
        """Encode a part of a text as it is within the whole, white space at its ends included.

        Args:
            text: the part; sampled tokens may come before and after it.
            begins: whether the part is the beginning of the whole, so that no token comes before it.

        Raises:
            ValueError: the tokenizer cannot spell the part.
        """

    def decode(self, ids: NDArray[np.integer]) -> str:
        """The text of any ids, whether or not they came from a text."""

    def save(self, directory: Path) -> None:
        """Write tokenizer.json, and what else the tokenizer needs, into an existing folder."""


def fit_tokenizer(kind: str, documents: Iterable[str], **settings: Any) -> Tokenizer:
    """Make a tokenizer; `pieces` learns its vocabulary from the documents, the others read none.

    Args:
        kind: letters, bytes, pieces, gpt2 or json.
        documents: to learn from.
        settings: those of the kind in params.yaml.

    Raises:
        ValueError: no such kind, the documents do not support the vocabulary, or a tokenizer's file is broken.
    """
    # Imported here because only `pieces` needs SentencePiece, and a machine that trains may not have it.
    match kind:
        case "letters":
            from mdpipe.data.tokenizers.letters import Letters

            return Letters()
        case "bytes":
            from mdpipe.data.tokenizers.bytes import Bytes

            return Bytes()
        case "pieces":
            from mdpipe.data.tokenizers.pieces import Pieces

            return Pieces.fit(documents, **settings)
        case "gpt2":
            from mdpipe.data.tokenizers.bpe import JsonTokenizer

            return JsonTokenizer.from_gpt2(settings["path"], revision=settings["revision"])
        case "json":
            from mdpipe.data.tokenizers.bpe import JsonTokenizer, resolve

            path = resolve(settings["path"], ["tokenizer.json"], settings["revision"])
            return JsonTokenizer.from_file(path, settings["end_of_text"])
    raise ValueError(f"tokenizer.kind = {kind!r} is not one of letters, bytes, pieces, gpt2, json")


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read a tokenizer that was saved in a folder.

    Raises:
        ValueError: a file of it is missing or broken.
    """
    cure = f"run the stage that wrote {directory} again"
    described = read_json(directory / "tokenizer.json", cure)
    match described.get("kind"):
        case "pieces":
            from mdpipe.data.tokenizers.pieces import Pieces

            tokenizer: Tokenizer = Pieces.load(directory, cure)
        case "json":
            from mdpipe.data.tokenizers.bpe import JsonTokenizer

            tokenizer = JsonTokenizer.load(directory, cure)
        case "letters" | "bytes" as kind:
            tokenizer = fit_tokenizer(kind, [])
        case kind:
            raise ValueError(f"{directory / 'tokenizer.json'} has the unknown kind {kind!r}; {cure}")
    if described.get("vocabulary") != tokenizer.vocabulary:
        raise ValueError(
            f"{directory / 'tokenizer.json'}: vocabulary = {described.get('vocabulary')!r}, and the tokenizer has"
            f" {tokenizer.vocabulary}; {cure}"
        )
    return tokenizer
