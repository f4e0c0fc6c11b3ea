"""A small trained tokenizer of the `tokenizers` library, and the files it comes in."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer
from mdpipe.params.data import GPT2Tokenizer, HFTokenizerFile

END = "<|endoftext|>"
LINES = ["the value of the expression is true\n", "a naïve    statement,\r\n\tis executed 12 times\n", "def t(): …"] * 5
SPECIAL = [END, "<|", "endoftext", "|>", "Ġ", "é", "\0", "\r\n", "\n", "  ", "\u2581", "\ufeff", "\ufffd", "e\u0301"]


def train() -> tokenizers.Tokenizer:
    """Byte pairs of the lines, with a second special token."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=[END, "<|mask|>"], show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def save_both(folder: Path) -> Path:
    """The same byte pairs as vocab.json with merges.txt, and as tokenizer.json."""
    tokenizer = train()
    tokenizer.model.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def from_file(path: Path, eos_token: str) -> HFTokenizer:
    """The tokenizer of a tokenizer.json."""
    return HFTokenizer.from_file(HFTokenizerFile(path=str(path), eos_token=eos_token))


def from_gpt2(path: Path | str) -> HFTokenizer:
    """The tokenizer of vocab.json and merges.txt."""
    return HFTokenizer.from_gpt2(GPT2Tokenizer(path=str(path)))


def read_as(form: str, folder: Path) -> HFTokenizer:
    """The byte pairs of "gpt2" or "file", the one form or the other."""
    if form == "gpt2":
        return from_gpt2(folder)
    return from_file(folder / "tokenizer.json", END)


def write_in(folder: Path, tokenizer: tokenizers.Tokenizer) -> Path:
    """Its tokenizer.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def of_every_kind(folder: Path) -> dict[str, HFTokenizer]:
    """A tokenizer.json of every kind, as Qwen, BERT, T5, Llama and their relatives have it, trained on the lines."""
    special = ["[UNK]", END, "[PAD]"]
    byte_level = {"pre_tokenizer": pre_tokenizers.ByteLevel(False), "decoder": decoders.ByteLevel()}
    metaspace = {"pre_tokenizer": pre_tokenizers.Metaspace(), "decoder": decoders.Metaspace()}
    split_metaspace = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    bert = {"pre_tokenizer": pre_tokenizers.BertPreTokenizer(), "decoder": decoders.WordPiece()}
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    llama = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe, unigram = models.BPE(unk_token="[UNK]"), models.Unigram()
    kinds: dict[str, tuple[models.Model, dict[str, Any], list[str]]] = {
        "bpe": (models.BPE(), byte_level, []),
        "bpe_nfc": (models.BPE(), byte_level | {"normalizer": normalizers.NFC()}, []),
        "bpe_prefix_space": (models.BPE(), byte_level | {"pre_tokenizer": pre_tokenizers.ByteLevel(True)}, []),
        "wordpiece": (models.WordPiece(unk_token="[UNK]"), bert | {"normalizer": normalizers.BertNormalizer()}, []),
        "wordpiece_cased": (models.WordPiece(unk_token="[UNK]"), bert, []),
        "unigram_metaspace": (unigram, metaspace, []),
        "unigram_t5": (
            models.Unigram(),
            metaspace | {"pre_tokenizer": split_metaspace, "normalizer": normalizers.NFKC()},
            [],
        ),
        "bpe_metaspace": (bpe, metaspace, []),
        "bpe_byte_fallback": (
            models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True),
            {
                "normalizer": normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
                "decoder": llama,
            },
            byte_tokens,
        ),
        "bpe_suffix": (
            models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"),
            {"pre_tokenizer": pre_tokenizers.BertPreTokenizer(), "decoder": decoders.BPEDecoder("</w>")},
            [],
        ),
        "words": (models.WordLevel(unk_token="[UNK]"), {"pre_tokenizer": pre_tokenizers.Whitespace()}, []),
    }
    found = {}
    for kind, (model, parts, more) in kinds.items():
        tokenizer = tokenizers.Tokenizer(model)
        for name, part in parts.items():
            setattr(tokenizer, name, part)
        alphabet = pre_tokenizers.ByteLevel.alphabet() if parts.get("decoder") is byte_level["decoder"] else []
        settings: dict[str, Any] = {"special_tokens": [*special, *more], "vocab_size": 700, "show_progress": False}
        if not isinstance(model, models.WordLevel):
            settings["initial_alphabet"] = alphabet
        if isinstance(model, models.BPE) and model.end_of_word_suffix:
            settings["end_of_word_suffix"] = model.end_of_word_suffix
        if isinstance(model, models.Unigram):
            settings["unk_token"] = "[UNK]"
        tokenizer.train_from_iterator(LINES, type(tokenizer.model.get_trainer())(**settings))
        (folder / kind).mkdir()
        path = write_in(folder / kind, tokenizer)
        content = json.loads(path.read_text(encoding="utf-8"))
        content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in more]
        path.write_text(json.dumps(content), encoding="utf-8")
        found[kind] = from_file(path, END)
    return found
