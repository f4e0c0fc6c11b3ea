"""Tokenizers: text to token ids and back, with an end-of-text token for document boundaries.

Those that are made here are text8's alphabet of 27 characters, the 256 bytes of UTF-8, and SentencePiece.

Shapes: ids int64 (n,).
"""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import read_json
from mdpipe.data.tokenizers.base import Span, Tokenizer

if TYPE_CHECKING:
    from mdpipe.params.data import SentencePieceTokenizer, TextTokenizer

ALPHABET = b" abcdefghijklmnopqrstuvwxyz"
DIGITS = (b"zero", b"one", b"two", b"three", b"four", b"five", b"six", b"seven", b"eight", b"nine")
_ID_OF_BYTE = np.zeros(256, dtype=np.int64)
_ID_OF_BYTE[list(ALPHABET)] = np.arange(len(ALPHABET))
_BYTE_OF_ID = np.frombuffer(ALPHABET, dtype=np.uint8)

END_OF_DOCUMENT = "--- end of document ---"
"""The line that represents an end-of-text token in text for people."""

NUL = b"\0"
NUL_IN_TEXT = b"\xc0\x80"
"""Modified UTF-8's overlong form of U+0000, which UTF-8 never uses."""

SPACE_SIGN = "\u2581"
MAX_SENTENCE_CHARS = 1000
"""Longest training sentence in characters. SentencePiece skips sentences of more than 4,192 bytes."""
CHARACTER_COVERAGE = 0.9995
"""Fraction of the characters that get their own token, at least; the rest are rare and cheaper in bytes."""
UNK_ID, EOS_ID = 0, 1
MORE_TEXT = "give more text (tokenizer.max_train_chars limits it as well), or choose the tokenizer `bytes`"


class Text8(Tokenizer):
    """Lower case, digits spelled out, and one space (id 0) for every run of other characters; ids 1 to 26 are a to z.

    The space is also the end-of-text token.
    """

    kind = "text8"
    vocab_size = len(ALPHABET)
    eos_id = 0
    is_lossless = False
    eos_separates_words = True

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return one id per character of the normalized text, which may begin and end with a space."""
        content = text.encode().lower()  # of bytes: only A to Z have a lower case, as in text8
        for digit, name in enumerate(DIGITS):
            content = content.replace(b"%d" % digit, b" %s " % name)
        return _ID_OF_BYTE[np.frombuffer(re.sub(rb"[^a-z]+", b" ", content), dtype=np.uint8)]

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Encode a part of a text.

        Raises:
            ValueError: It has letters or digits, none of which are left.
        """
        ids = self.encode(text)
        if any(character.isalnum() for character in text) and not ids.any():
            raise ValueError(f"the tokenizer 'text8' keeps nothing of {text!r}; write it in the letters a to z")
        return Span(ids, self.decode(ids))

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return one character per id."""
        return bytes(_BYTE_OF_ID[ids]).decode("ascii")


class Bytes(Tokenizer):
    """The bytes of UTF-8 are their own ids; NUL (id 0) is the end-of-text token.

    A NUL within a text is spelled as in Java's modified UTF-8, so that it does not end the document.
    """

    kind = "bytes"
    vocab_size = 256
    eos_id = 0

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return one id per byte, two for a NUL."""
        return np.frombuffer(text.encode().replace(NUL, NUL_IN_TEXT), dtype=np.uint8).astype(np.int64)

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return the text of the bytes; invalid UTF-8 becomes U+FFFD."""
        return ids.astype(np.uint8).tobytes().replace(NUL_IN_TEXT, NUL).decode("utf-8", errors="replace")


class SentencePiece(Tokenizer):
    """A vocabulary of subwords and the 256 bytes, set up so that every text can be decoded from its ids.

    Characters that are not in the vocabulary are spelled in bytes. Nothing is normalized, stripped or prefixed. The one
    exception is U+2581, which SentencePiece uses for a space inside its tokens and decodes to a space: `encode` spells
    that sign in bytes itself.
    """

    kind = "sentencepiece"
    eos_id = EOS_ID
    unk_id = UNK_ID

    def __init__(self, model: bytes) -> None:
        import sentencepiece  # Here, because a machine that only trains and evaluates models may not have it.

        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        # Not by the constructor's argument: it treats an empty model as no model.
        self._processor.LoadFromSerializedProto(model)
        self.vocab_size = self._processor.get_piece_size()
        self._space_sign = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_SIGN.encode()]

    @classmethod
    def train(cls, documents: Iterable[str], config: "SentencePieceTokenizer") -> "SentencePiece":
        """Learn the vocabulary; equal documents make equal bytes.

        Raises:
            ValueError: The documents are empty, or support no vocabulary of this size.
        """
        import sentencepiece

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
            raise ValueError(_explain_failure(str(error), config.vocab_size)) from None
        return cls(written.getvalue())

    @classmethod
    def load(cls, directory: Path, hint: str) -> "SentencePiece":
        """Read sentencepiece.model.

        Raises:
            ValueError: The file is missing or broken; the message ends with `hint`.
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

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return the text of the ids; invalid UTF-8 becomes U+FFFD, and the end-of-text token has no text."""
        text: str = self._processor.decode(ids.tolist())
        return text

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and sentencepiece.model."""
        super().save(directory)
        (directory / "sentencepiece.model").write_bytes(self._model)


def _sentences(documents: Iterable[str]) -> Iterator[str]:
    """Yield lines, cut if they are long. A newline begins its sentence, because SentencePiece drops one at the end."""
    for document in documents:
        for line in re.split(rf"(?=\n)|{SPACE_SIGN}", document):
            for start in range(0, len(line), MAX_SENTENCE_CHARS):
                yield line[start : start + MAX_SENTENCE_CHARS]


def _explain_failure(message: str, vocab_size: int) -> str:
    setting = f"tokenizer.vocab_size = {vocab_size}"
    if most := re.search(r"value <= (\d+)", message):
        supported = f"the training text, which supports {most[1]} tokens at most"
        return f"{setting} is too large for {supported}; lower it in params.yaml, or {MORE_TEXT}"
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"{setting} is too small for the characters of this text; raise it in params.yaml to {least[1]} or more"
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return f"the training text has nothing but line ends and NUL that SentencePiece could learn from; {MORE_TEXT}"
    return f"SentencePiece learned no {setting} from the training text ({message}); {MORE_TEXT}"


def build_tokenizer(config: "TextTokenizer", documents: Iterable[str] = ()) -> Tokenizer:
    """Build a tokenizer; SentencePiece is trained on the documents, the other kinds read none.

    Raises:
        ValueError: The documents are too few for the vocabulary, or a tokenizer's file is missing or broken.
    """
    match config.kind:
        case "text8":
            return Text8()
        case "bytes":
            return Bytes()
        case "sentencepiece":
            return SentencePiece.train(documents, config)
    from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer  # `tokenizers`, which not every machine has.

    return HFTokenizer.from_gpt2(config) if config.kind == "gpt2" else HFTokenizer.from_file(config)


def decode_for_people(tokenizer: Tokenizer, ids: NDArray[np.integer]) -> str:
    """Return the text of any ids (n,), with the line `END_OF_DOCUMENT` for each end-of-text token.

    text8 has no such line: its end-of-text token is the space between words.
    """
    if tokenizer.eos_separates_words:
        return tokenizer.decode(ids)
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.eos_id))  # All but the first begin with the token.
    texts = (tokenizer.decode(document[document != tokenizer.eos_id]) for document in documents)
    return f"\n{END_OF_DOCUMENT}\n".join(texts)


def decode_samples(tokenizer: Tokenizer, ids: NDArray[np.integer]) -> list[str]:
    """Return the texts of samples (N, L) for people, each below a heading with its number."""
    texts = (decode_for_people(tokenizer, row) for row in ids)
    return [f"--- sample {number} ---\n{text}\n" for number, text in enumerate(texts, start=1)]


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read a tokenizer that was saved in a folder.

    Raises:
        ValueError: A file of it is missing or broken.
    """
    path, hint = directory / "tokenizer.json", f"run the stage that wrote {directory} again"
    header = read_json(path, hint)
    tokenizer: Tokenizer
    match header.get("kind"):
        case "text8":
            tokenizer = Text8()
        case "bytes":
            tokenizer = Bytes()
        case "sentencepiece":
            tokenizer = SentencePiece.load(directory, hint)
        case "hf_tokenizer":
            from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer

            tokenizer = HFTokenizer.load(directory, hint)
        case kind:
            raise ValueError(f"{path} has the unknown kind {kind!r}; {hint}")
    stated = header.get("vocab_size")
    if stated != tokenizer.vocab_size:
        raise ValueError(f"{path}: vocab_size = {stated!r}, and the tokenizer has {tokenizer.vocab_size}; {hint}")
    return tokenizer
