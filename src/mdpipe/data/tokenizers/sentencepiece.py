"""SentencePiece, set up so that every text can be decoded from its ids.

Characters that are not in the vocabulary are spelled in bytes. Nothing is normalized, stripped or prefixed. The one
exception is U+2581, which SentencePiece uses for a space inside its tokens and decodes to a space: `encode` spells that
sign in bytes itself.
"""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import write_json
from mdpipe.data.tokenizers import Span

if TYPE_CHECKING:
    from mdpipe.params.data import SentencePieceTokenizer

SPACE_SIGN = "\u2581"
MAX_SENTENCE_CHARS = 1000
"""Longest training sentence in characters. SentencePiece skips sentences of more than 4,192 bytes."""
CHARACTER_COVERAGE = 0.9995
"""Fraction of the characters that get their own token, at least; the rest are rare and cheaper in bytes."""
UNK_ID, EOS_ID = 0, 1
MORE_TEXT = "give more text (tokenizer.max_train_chars limits it as well), or choose the tokenizer `bytes`"


class SentencePiece:
    """A vocabulary of subwords and the 256 bytes."""

    kind: ClassVar[str] = "sentencepiece"
    eos_id: ClassVar[int] = EOS_ID
    unk_id: ClassVar[int] = UNK_ID
    is_lossless: ClassVar[bool] = True
    eos_separates_words: ClassVar[bool] = False

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        # Not by the constructor's argument: it treats an empty model as no model.
        self._processor.LoadFromSerializedProto(model)
        self.vocab_size: int = self._processor.get_piece_size()
        self._space_sign = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_SIGN.encode()]

    @classmethod
    def train(cls, documents: Iterable[str], config: "SentencePieceTokenizer") -> "SentencePiece":
        """Learn the vocabulary; equal documents make equal bytes.

        Raises:
            ValueError: the documents are empty, or support no vocabulary of this size.
        """
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(documents),
                model_writer=written,
                model_type=config.model_type,
                vocab_size=config.vocab_size,
                hard_vocab_limit=True,
                byte_fallback=True,
                character_coverage=CHARACTER_COVERAGE,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                unk_id=UNK_ID,
                eos_id=EOS_ID,
                bos_id=-1,
                pad_id=-1,
                num_threads=1,
                shuffle_input_sentence=False,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(_explain(str(error), config.vocab_size)) from None
        return cls(written.getvalue())

    @classmethod
    def load(cls, directory: Path, hint: str) -> "SentencePiece":
        """Read sentencepiece.model.

        Raises:
            ValueError: the file is missing or broken; the message ends with `hint`.
        """
        path = directory / "sentencepiece.model"
        try:
            return cls(path.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{path} does not exist; {hint}") from None
        except RuntimeError:
            raise ValueError(f"{path} is empty, truncated or no SentencePiece model; {hint}") from None

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of the most likely segmentation of the text: (n,)."""
        first, *rest = self._processor.encode(text.split(SPACE_SIGN))
        for ids in rest:
            first += self._space_sign + ids
        return np.array(first, dtype=np.int64)

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Encode a part of a text, which has the same ids everywhere."""
        return Span(self.encode(text), text)

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return the text of the ids; invalid UTF-8 becomes U+FFFD, and the end-of-text token has no text."""
        text: str = self._processor.decode(ids.tolist())
        return text

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and sentencepiece.model."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocab_size": self.vocab_size})
        (directory / "sentencepiece.model").write_bytes(self._model)


def _sentences(documents: Iterable[str]) -> Iterator[str]:
    """Yield lines, cut if they are long. A newline begins its sentence, because SentencePiece drops one at the end."""
    for document in documents:
        for line in re.split(rf"(?=\n)|{SPACE_SIGN}", document):
            for start in range(0, len(line), MAX_SENTENCE_CHARS):
                yield line[start : start + MAX_SENTENCE_CHARS]


def _explain(message: str, vocab_size: int) -> str:
    setting = f"tokenizer.vocab_size = {vocab_size}"
    if most := re.search(r"value <= (\d+)", message):
        supported = f"the training text, which supports {most[1]} tokens at most"
        return f"{setting} is too large for {supported}; lower it in params.yaml, or {MORE_TEXT}"
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"{setting} is too small for the characters of this text; raise it in params.yaml to {least[1]} or more"
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return f"the training text has nothing but line ends and NUL that SentencePiece could learn from; {MORE_TEXT}"
    return f"SentencePiece learned no {setting} from the training text ({message}); {MORE_TEXT}"
