"""SentencePiece, set up so that every text survives the way to ids and back.

Characters that are not in the vocabulary are spelled in bytes. Nothing is normalised, stripped or prefixed. What is
left is U+2581, the sign that SentencePiece writes for a space inside its pieces and turns back into a space: it never
gets to see one, because `encode` spells that sign in bytes itself.
"""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.tokenizers.span import Span

SPACE_SIGN = "\u2581"
CHUNK = 1000
"""Longest piece of a line in training, in characters. SentencePiece skips sentences of more than 4,192 bytes."""
COVERAGE = 0.9995
"""Share of the characters that get a piece of their own at least; the rest are rare and cheaper in bytes."""
UNKNOWN, END_OF_TEXT = 0, 1
MORE_TEXT = "give more text (tokenizer.sample limits it as well), or choose the tokenizer `bytes`"


class Pieces:
    """A vocabulary of pieces, the 256 bytes among them; the end-of-text id separates documents."""

    kind: ClassVar[str] = "pieces"
    lossless: ClassVar[bool] = True
    separator: ClassVar[tuple[int, ...]] = (END_OF_TEXT,)
    joint: ClassVar[tuple[int, ...]] = ()
    unknown: ClassVar[int] = UNKNOWN

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        # Not by the constructor's argument, which takes an empty model for none at all.
        self._processor.LoadFromSerializedProto(model)
        self.vocabulary: int = self._processor.get_piece_size()
        self._space_sign = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_SIGN.encode()]

    @classmethod
    def fit(cls, documents: Iterable[str], vocabulary: int, model: str = "unigram") -> "Pieces":
        """Learn the pieces; equal documents make equal bytes.

        Raises:
            ValueError: the documents are empty, or support no vocabulary of this size.
        """
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_chunks(documents),
                model_writer=written,
                model_type=model,
                vocab_size=vocabulary,
                hard_vocab_limit=True,
                byte_fallback=True,
                character_coverage=COVERAGE,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                unk_id=UNKNOWN,
                eos_id=END_OF_TEXT,
                bos_id=-1,
                pad_id=-1,
                num_threads=1,
                shuffle_input_sentence=False,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(_explained(str(error), vocabulary)) from None
        return cls(written.getvalue())

    @classmethod
    def load(cls, directory: Path, cure: str) -> "Pieces":
        """Read pieces.model.

        Raises:
            ValueError: the file is missing or broken; the message ends with `cure`.
        """
        path = directory / "pieces.model"
        try:
            return cls(path.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{path} does not exist; {cure}") from None
        except RuntimeError:
            raise ValueError(f"{path} is empty, truncated or no SentencePiece model; {cure}") from None

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of the text's most likely segmentation: (n,)."""
        first, *rest = self._processor.encode(text.split(SPACE_SIGN))
        for ids in rest:
            first += self._space_sign + ids
        return np.array(first, dtype=np.int64)

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Return the ids of the text, which are the same wherever it is."""
        return Span(self.encode(text), text)

    def decode(self, ids: NDArray[np.integer]) -> str:
        """The text of the pieces; the end of text has none, bytes that are no UTF-8 become U+FFFD."""
        text: str = self._processor.decode(ids.tolist())
        return text

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and pieces.model."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocabulary": self.vocabulary})
        (directory / "pieces.model").write_bytes(self._model)


def _chunks(documents: Iterable[str]) -> Iterator[str]:
    """Lines, and long lines in parts. A newline begins its chunk, because SentencePiece drops it at the end of one."""
    for document in documents:
        for line in re.split(rf"(?=\n)|{SPACE_SIGN}", document):
            for start in range(0, len(line), CHUNK):
                yield line[start : start + CHUNK]


def _explained(message: str, vocabulary: int) -> str:
    setting = f"tokenizer.vocabulary = {vocabulary}"
    if most := re.search(r"value <= (\d+)", message):
        supported = f"the training text, which supports {most[1]} pieces at most"
        return f"{setting} is too large for {supported}; lower it in params.yaml, or {MORE_TEXT}"
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"{setting} is too small for the characters of this text; raise it in params.yaml to {least[1]} or more"
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return f"the training text has nothing but line ends and NUL that SentencePiece could learn from; {MORE_TEXT}"
    return f"SentencePiece learned no {setting} from the training text ({message}); {MORE_TEXT}"
