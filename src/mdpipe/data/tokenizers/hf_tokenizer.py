"""Pretrained tokenizers: GPT-2's byte pairs, and any tokenizer.json of the `tokenizers` library.

Documents are plain text. A special token that a document spells out, such as "<|endoftext|>", is encoded like other
text, so that the end-of-text token occurs between documents only. Nothing is added, truncated, padded or random.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from mdpipe.data.artifacts.files import read_json, write_json
from mdpipe.data.tokenizers.base import Span, Tokenizer

if TYPE_CHECKING:
    from mdpipe.params.data import GPT2Tokenizer, HFTokenizerFile

GPT2_FILES, GPT2_EOS_TOKEN = ("vocab.json", "merges.txt"), "<|endoftext|>"

CONTEXTS = ("a", "q", "7", "\n", ".", "\u263a")
"""Contexts to encode the continuation of a text after, until it shares no token with one and decodes to itself."""


class HFTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, with one token of its vocabulary as the end-of-text token."""

    kind = "hf_tokenizer"

    def __init__(self, content: dict[str, Any], eos_token: str) -> None:
        # From the text that is saved: the library rounds a number by the digits it is written in. Without write_json's
        # indentation, GPT-2's file has less than half its length.
        self._model = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        self._tokenizer = tokenizers.Tokenizer.from_str(self._model)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.add_special_tokens([eos_token])  # for files that have it as an ordinary token
        self._tokenizer.encode_special_tokens = True
        if isinstance(self._tokenizer.model, models.BPE):
            self._tokenizer.model.dropout = None
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(len(ids), max(ids.values()) + 1)
        self.eos_id = ids[eos_token]
        stated = content["model"].get("unk_token")
        self.unk_id = ids.get(stated) if stated is not None else content["model"].get("unk_id")
        complete = json.loads(self._tokenizer.to_str())
        spelled = [ids[token] for byte in range(256) if (token := f"<0x{byte:02X}>") in ids]
        falls_back = len(spelled) == 256 and '"ByteFallback"' in json.dumps(complete["decoder"])
        self._id_of_byte: list[int] = spelled if falls_back else []
        self._byte_of = {id: byte for byte, id in enumerate(self._id_of_byte)}
        self.is_lossless = _keeps_every_byte(complete)

    @classmethod
    def from_gpt2(cls, config: "GPT2Tokenizer") -> "HFTokenizer":
        """Read vocab.json and merges.txt of GPT-2 in a folder or a repository on the Hub.

        Raises:
            ValueError: A file is missing or broken, the two do not fit, or the vocabulary has no <|endoftext|>.
        """
        hint = f"name a folder with the {' and '.join(GPT2_FILES)} of one model in params.yaml"
        folder = _resolve(config.path, GPT2_FILES, config.revision)
        vocab_file, merges = (folder / file for file in GPT2_FILES)
        for path in (vocab_file, merges):
            if not path.is_file():
                raise ValueError(f"{path} does not exist; {hint}")
        read_json(vocab_file, hint)  # the library does not say which of the two files is broken
        with _explain(f"{merges} does not fit {vocab_file}", hint):
            tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(vocab_file), str(merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        _check_vocab(tokenizer, GPT2_EOS_TOKEN, vocab_file)
        return cls(json.loads(tokenizer.to_str()), GPT2_EOS_TOKEN)

    @classmethod
    def from_file(cls, config: "HFTokenizerFile") -> "HFTokenizer":
        """Read a tokenizer.json: a file, or in a folder or a repository on the Hub.

        Raises:
            ValueError: The file is missing or broken, or has no such end-of-text token.
        """
        path = _resolve(config.path, ["tokenizer.json"], config.revision)
        path = path / "tokenizer.json" if path.is_dir() else path
        content, tokenizer = _read(path, "name a tokenizer.json of the `tokenizers` library in params.yaml")
        _check_vocab(tokenizer, config.eos_token, path)
        return cls(content, config.eos_token)

    @classmethod
    def load(cls, directory: Path, hint: str) -> "HFTokenizer":
        """Read tokenizer.json and model.json.

        Raises:
            ValueError: A file is missing or broken; the message ends with `hint`.
        """
        path = directory / "tokenizer.json"
        eos_id = read_json(path, hint).get("eos_id")
        content, tokenizer = _read(directory / "model.json", hint)
        for token, id in tokenizer.get_vocab(with_added_tokens=True).items():
            if id == eos_id:
                return cls(content, token)
        raise ValueError(f"{path} has eos_id = {eos_id!r}, which is not an id of its model.json; {hint}")

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of the text, which never include the end-of-text token: (n,).

        Raises:
            ValueError: A part of the text has no other id than the end-of-text token.
        """
        return np.array(self._encode(text), dtype=np.int64)

    def _encode(self, text: str) -> list[int]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self.eos_id not in ids:
            return ids
        # The end-of-text token is also an ordinary subword of this model. It is cut after its first character.
        spans = [span for id, span in zip(ids, encoding.offsets, strict=True) if id == self.eos_id]
        for start, stop in spans:
            if stop - start < 2:
                failure = f"the text {text[start:stop]!r} is the end-of-text token of this tokenizer"
                raise ValueError(f"{failure}; choose another eos_token in params.yaml")
        cuts = [0, *(start + 1 for start, _ in spans), len(text)]
        return [id for start, stop in pairwise(cuts) for id in self._encode(text[start:stop])]

    def encode_span(self, text: str, *, begins: bool) -> Span:
        """Encode a part of a text so that it decodes to itself within the whole.

        Encoded separately, a part in the middle of a word would begin with a space.

        Raises:
            ValueError: It decodes to other characters, except for case, accents and white space.
        """
        if self.is_lossless:
            return Span(self.encode(text), text)
        spans = [self._span([], self._encode(text))] if begins else self._continuations(text)
        span = min(spans, key=lambda span: (span.text != text, _essence(span.text) != _essence(text)))
        if _essence(span.text) != _essence(text) or self.unk_id in span.ids.tolist():
            raise ValueError(
                f"the run's tokenizer cannot spell {text!r}: it reads {span.text!r}; leave out what is missing there"
            )
        return span

    def _continuations(self, text: str) -> list[Span]:
        """Encode a text after each context that it shares no token with, and on its own."""
        spans: list[Span] = []
        before: list[int] = []
        for context in CONTEXTS:
            found: list[int] = self._tokenizer.encode(context, add_special_tokens=False).ids
            if not found or found == [self.eos_id]:
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
        """Return the text of the ids; invalid UTF-8 becomes U+FFFD, and special tokens have no text."""
        return self._decode(ids.tolist())

    def _decode(self, ids: list[int]) -> str:
        whole = self._with_whole_characters(ids) if self._byte_of else ids
        text: str = self._tokenizer.decode(whole, skip_special_tokens=True)
        return text

    def _with_whole_characters(self, ids: list[int]) -> list[int]:
        """Replace invalid UTF-8, because the library would replace the valid bytes next to it as well."""
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
        header = {"kind": self.kind, "vocab_size": self.vocab_size, "eos_id": self.eos_id}
        write_json(directory / "tokenizer.json", header)
        (directory / "model.json").write_text(self._model + "\n", encoding="utf-8")


def _resolve(name_or_path: str, files: Sequence[str], revision: str | None) -> Path:
    """Return a local path as it is; for a repository on the Hugging Face Hub, the folder of its downloaded files."""
    if Path(name_or_path).exists():
        return Path(name_or_path)
    # Imported here because local files do not need it.
    from huggingface_hub import hf_hub_download

    try:
        return [Path(hf_hub_download(name_or_path, file, revision=revision)) for file in files][-1].parent
    except Exception as error:  # errors of the Hub have no common class
        failure = f"{name_or_path} is not a local path, and the Hugging Face Hub has no {' and '.join(files)} for it"
        hint = "put the named files into a local folder and name that in params.yaml"
        raise ValueError(f"{failure} ({type(error).__name__}); {hint}") from None


def _essence(text: str) -> str:
    """Return what normalizers preserve: not case, accents, compatibility forms, white space and control characters."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(char for char in folded if not unicodedata.category(char).startswith(("C", "Mn", "Z")))


def _keeps_every_byte(content: dict[str, Any]) -> bool:
    """Return True if the rules of a tokenizer.json guarantee that every text can be decoded from its ids."""
    model, before, after = content["model"], content["pre_tokenizer"] or {}, content["decoder"] or {}
    *splits, last = before.get("pretokenizers") or [before]
    if model["type"] != "BPE" or content["normalizer"] or {last.get("type"), after.get("type")} != {"ByteLevel"}:
        return False
    if any(step["type"] != "Split" or step["behavior"] == "Removed" for step in splits):
        return False
    if last["add_prefix_space"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        return False
    byte_alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    whole_words = model["vocab"] if model["ignore_merges"] else []
    ordinary = byte_alphabet.union(map("".join, model["merges"]), whole_words)
    return byte_alphabet <= model["vocab"].keys() and all(
        # Decoding leaves special tokens out, and reads characters of other added tokens as bytes.
        token["content"] not in ordinary
        if token["special"]
        else not (token["lstrip"] or token["rstrip"])
        and decoders.ByteLevel().decode([token["content"]]) == token["content"]
        for token in content["added_tokens"]
    )


def _read(path: Path, hint: str) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    content = read_json(path, hint)
    with _explain(f"{path} is not a tokenizer of the `tokenizers` library", hint):
        return content, tokenizers.Tokenizer.from_str(json.dumps(content))


def _check_vocab(tokenizer: tokenizers.Tokenizer, eos_token: str, path: Path) -> None:
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if eos_token not in ids:
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        known = f", whose special tokens are {', '.join(map(repr, special))}" if special else ""
        raise ValueError(f"eos_token = {eos_token!r} is not a token of {path}{known}; change it in params.yaml")
    if len(set(ids.values())) < len(ids):
        raise ValueError(f"{path} gives one id to two tokens; take the file from its source again")


@contextmanager
def _explain(failure: str, hint: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # The library panics on some broken files. A panic is not an Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{failure} ({error}); {hint}") from None
