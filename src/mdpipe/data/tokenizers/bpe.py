"""Tokenizers that others trained: GPT-2's byte pairs, and any tokenizer.json of the `tokenizers` library.

A document is plain text. A special token that it spells out, "<|endoftext|>" say, is encoded like other text, so that
the end-of-text id stands between documents and nowhere else. Nothing is added, truncated, padded or left to chance.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from mdpipe.data.artifacts.stable_json import read_json, write_json
from mdpipe.data.tokenizers.span import Span

GPT2_FILES = ("vocab.json", "merges.txt")

CONTEXTS = ("a", "q", "7", "\n", ".", "\u263a")
"""What the continuation of a text is encoded after, one by one, until it shares no token with the context and comes
back unchanged."""


class JsonTokenizer:
    """A tokenizer of the `tokenizers` library; one token of its vocabulary, the end of text, separates documents."""

    kind: ClassVar[str] = "json"

    def __init__(self, content: dict[str, Any], end_of_text: str) -> None:
        # From the text that is saved: the library reads a number to within its last bit only, which depends on its
        # digits. Without write_json's indentation, GPT-2's file has less than half its length.
        self._model = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        self._tokenizer = tokenizers.Tokenizer.from_str(self._model)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.add_special_tokens([end_of_text])  # where it is an ordinary token, and decodes to its text
        self._tokenizer.encode_special_tokens = True
        if isinstance(self._tokenizer.model, models.BPE):
            self._tokenizer.model.dropout = None
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary: int = max(len(ids), max(ids.values()) + 1)
        self.separator: tuple[int, ...] = (ids[end_of_text],)
        self.joint: tuple[int, ...] = ()
        stated = content["model"].get("unk_token")
        self.unknown: int | None = ids.get(stated) if stated is not None else content["model"].get("unk_id")
        complete = json.loads(self._tokenizer.to_str())
        spelled = [ids[token] for byte in range(256) if (token := f"<0x{byte:02X}>") in ids]
        falls_back = len(spelled) == 256 and '"ByteFallback"' in json.dumps(complete["decoder"])
        self._id_of_byte: list[int] = spelled if falls_back else []
        self._byte_of = {id: byte for byte, id in enumerate(self._id_of_byte)}
        self.lossless: bool = _keeps_every_byte(complete)

    @classmethod
    def from_gpt2(
        cls, directory_or_name: str | Path, end_of_text: str = "<|endoftext|>", revision: str | None = None
    ) -> "JsonTokenizer":
        """Byte pairs as in GPT-2, from vocab.json and merges.txt in a folder or a repository of the Hub.

        Raises:
            ValueError: a file is missing or broken, the two do not fit, or the vocabulary has no such end of text.
        """
        cure = f"name a folder with the {' and '.join(GPT2_FILES)} of one model in params.yaml"
        folder = resolve(str(directory_or_name), GPT2_FILES, revision)
        vocabulary, merges = (folder / file for file in GPT2_FILES)
        for path in (vocabulary, merges):
            if not path.is_file():
                raise ValueError(f"{path} does not exist; {cure}")
        read_json(vocabulary, cure)  # the library does not say which of the two files is broken
        with _explained(f"{merges} does not fit {vocabulary}", cure):
            tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        _check_vocabulary(tokenizer, end_of_text, vocabulary)
        return cls(json.loads(tokenizer.to_str()), end_of_text)

    @classmethod
    def from_file(cls, path: str | Path, end_of_text: str) -> "JsonTokenizer":
        """Any tokenizer.json, by its path or its folder's.

        Raises:
            ValueError: the file is missing or broken, or has no such end of text.
        """
        path = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        content, tokenizer = _read(path, "name a tokenizer.json of the `tokenizers` library in params.yaml")
        _check_vocabulary(tokenizer, end_of_text, path)
        return cls(content, end_of_text)

    @classmethod
    def load(cls, directory: Path, cure: str) -> "JsonTokenizer":
        """Read tokenizer.json and model.json.

        Raises:
            ValueError: a file is missing or broken; the message ends with `cure`.
        """
        path = directory / "tokenizer.json"
        end_of_text = read_json(path, cure).get("end_of_text")
        content, tokenizer = _read(directory / "model.json", cure)
        for token, id in tokenizer.get_vocab(with_added_tokens=True).items():
            if id == end_of_text:
                return cls(content, token)
        raise ValueError(f"{path} has end_of_text = {end_of_text!r}, which is no id of its model.json; {cure}")

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of the text, the end-of-text id never among them: (n,).

        Raises:
            ValueError: the text holds something that has no other id than the end of text.
        """
        return np.array(self._encode(text), dtype=np.int64)

    def _encode(self, text: str) -> list[int]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        [end_of_text] = self.separator
        if end_of_text not in ids:
            return ids
        # The end of text is also an ordinary piece of this model. It is cut after its first character.
        spans = [span for id, span in zip(ids, encoding.offsets, strict=True) if id == end_of_text]
        for start, stop in spans:
            if stop - start < 2:
                failure = f"the text {text[start:stop]!r} is the end of text in this tokenizer"
                raise ValueError(f"{failure}; choose another end_of_text in params.yaml")
        cuts = [0, *(start + 1 for start, _ in spans), len(text)]
        return [id for start, stop in pairwise(cuts) for id in self._encode(text[start:stop])]

    def encode_span(self, text: str, *, begins: bool) -> Span:
        """Encode a part of a text so that decoding gives it back within the whole.

        By itself, a part that does not begin the text would get the mark of a new word, and so a space before it.

        Raises:
            ValueError: it comes back with other characters, case, accents and white space aside.
        """
        if self.lossless:
            return Span(self.encode(text), text)
        spans = [self._span([], self._encode(text))] if begins else self._continuations(text)
        span = min(spans, key=lambda span: (span.text != text, _essence(span.text) != _essence(text)))
        if _essence(span.text) != _essence(text) or self.unknown in span.ids.tolist():
            raise ValueError(
                f"the run's tokenizer cannot spell {text!r}: it reads {span.text!r}; leave out what is missing there"
            )
        return span

    def _continuations(self, text: str) -> list[Span]:
        """Encode a text after each context that it shares no token with, and by itself."""
        spans: list[Span] = []
        before: list[int] = []
        for context in CONTEXTS:
            found: list[int] = self._tokenizer.encode(context, add_special_tokens=False).ids
            if not found or found == [*self.separator]:
                continue
            before = before or found
            ids = self._encode(context + text)
            if ids[: len(found)] == found:
                spans.append(self._span(found, ids[len(found) :]))
        return [*spans, self._span(before, self._encode(text))]

    def _span(self, before: list[int], ids: list[int]) -> Span:
        text = self._decode(before + ids).removeprefix(self._decode(before))
        return Span(np.array(ids, dtype=np.int64), text)

    def decode(self, ids: NDArray[np.integer]) -> str:
        """The text of the ids; special tokens have none, and bytes that are no UTF-8 become U+FFFD."""
        return self._decode(ids.tolist())

    def _decode(self, ids: list[int]) -> str:
        whole = self._with_whole_characters(ids) if self._byte_of else ids
        text: str = self._tokenizer.decode(whole, skip_special_tokens=True)
        return text

    def _with_whole_characters(self, ids: list[int]) -> list[int]:
        """Replace bytes that are not UTF-8, since the library would replace the valid ones next to them as well."""
        whole: list[int] = []
        for are_bytes, run in groupby(ids, key=self._byte_of.__contains__):
            if are_bytes:
                text = bytes(self._byte_of[id] for id in run).decode("utf-8", errors="replace")
                whole += [self._id_of_byte[byte] for byte in text.encode()]
            else:
                whole += run
        return whole

    def save(self, directory: Path) -> None:
        """Write tokenizer.json, and the library's own file as model.json."""
        settings = {"kind": self.kind, "vocabulary": self.vocabulary, "end_of_text": self.separator[0]}
        write_json(directory / "tokenizer.json", settings)
        (directory / "model.json").write_text(self._model + "\n", encoding="utf-8")


def resolve(name_or_path: str, files: Sequence[str], revision: str | None) -> Path:
    """A local path as it is; for a name of the Hugging Face Hub, the folder that holds its files here.

    Raises:
        ValueError: there is no such path, and the Hub does not give the files.
    """
    if Path(name_or_path).exists():
        return Path(name_or_path)
    # Imported here because local files do without it.
    from huggingface_hub import hf_hub_download

    try:
        return [Path(hf_hub_download(name_or_path, file, revision=revision)) for file in files][-1].parent
    except Exception as error:  # those of the Hub have no class of their own in common
        failure = f"{name_or_path} is no path here, and the Hugging Face Hub gives no {' and '.join(files)} for it"
        cure = "put the named files into a local folder and name that in params.yaml"
        raise ValueError(f"{failure} ({type(error).__name__}); {cure}") from None


def _essence(text: str) -> str:
    """Return what normalizers preserve: not case, accents, compatibility forms, white space and control characters."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(letter for letter in letters if not unicodedata.category(letter).startswith(("C", "Mn", "Z")))


def _keeps_every_byte(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json leads every text to ids and back; where the rule cannot tell, it says no."""
    model, before, after = content["model"], content["pre_tokenizer"] or {}, content["decoder"] or {}
    *splits, last = before.get("pretokenizers") or [before]
    if model["type"] != "BPE" or content["normalizer"] or {last.get("type"), after.get("type")} != {"ByteLevel"}:
        return False
    if any(step["type"] != "Split" or step["behavior"] == "Removed" for step in splits):
        return False
    if last["add_prefix_space"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        return False
    letters_of_bytes = set(pre_tokenizers.ByteLevel.alphabet())
    whole_words = model["vocab"] if model["ignore_merges"] else []
    ordinary = letters_of_bytes.union(map("".join, model["merges"]), whole_words)
    return letters_of_bytes <= model["vocab"].keys() and all(
        # Decoding leaves special tokens out, and takes letters of other added tokens for bytes.
        token["content"] not in ordinary
        if token["special"]
        else not (token["lstrip"] or token["rstrip"])
        and decoders.ByteLevel().decode([token["content"]]) == token["content"]
        for token in content["added_tokens"]
    )


def _read(path: Path, cure: str) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    content = read_json(path, cure)
    with _explained(f"{path} is no tokenizer of the `tokenizers` library", cure):
        return content, tokenizers.Tokenizer.from_str(json.dumps(content))


def _check_vocabulary(tokenizer: tokenizers.Tokenizer, end_of_text: str, path: Path) -> None:
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if end_of_text not in ids:
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        known = f", whose special tokens are {', '.join(map(repr, special))}" if special else ""
        raise ValueError(f"end_of_text = {end_of_text!r} is no token of {path}{known}; change it in params.yaml")
    if len(set(ids.values())) < len(ids):
        raise ValueError(f"{path} gives one id to two tokens; take the file from its source again")


@contextmanager
def _explained(failure: str, cure: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # The library panics on some broken files. A panic is no Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{failure} ({error}); {cure}") from None
