"""A small trained tokenizer of the `tokenizers` library, and the files it comes in."""

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from mdpipe.data.tokenizers.bpe import JsonTokenizer

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


def read_as(form: str, folder: Path) -> JsonTokenizer:
    """The byte pairs of "gpt2" or "file", the one form or the other."""
    if form == "gpt2":
        return JsonTokenizer.from_gpt2(folder)
    return JsonTokenizer.from_file(folder / "tokenizer.json", END)


def write_in(folder: Path, tokenizer: tokenizers.Tokenizer) -> Path:
    """Its tokenizer.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
