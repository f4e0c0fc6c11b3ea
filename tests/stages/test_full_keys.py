"""Errors of stages name a key of params.yaml by its full path."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mdpipe.console import with_full_keys
from mdpipe.params import Params

DATASET = {"datasets": "docs_subwords"}
RUN = {"runs": "chars_md4"}
SOURCE = {"sources": "digits"}


@pytest.mark.parametrize(
    ("names", "message", "expected"),
    [
        (
            DATASET,
            "tokenizer.vocab_size = 9 is",
            "datasets.docs_subwords.tokenizer.vocab_size = 9 is",
        ),
        (DATASET, "lower the dataset's `seq_len`", "lower `datasets.docs_subwords.seq_len`"),
        (DATASET, "lower `seq_len` in params.yaml", "lower `datasets.docs_subwords.seq_len` in params.yaml"),
        (DATASET, "set the source's `path` to x", "set `sources.pydantic_docs.path` to x"),
        (
            DATASET,
            "no end_of_text; change it in params.yaml",
            "no end_of_text; change it in params.yaml (under d",
        ),
        (DATASET, "data/x/tokenizer.json is broken", "data/x/tokenizer.json is broken"),
        (DATASET, "a tokenizer.json of the library", "a tokenizer.json of the library"),
        (RUN, "network.num_heads = 3 does not", "runs.chars_md4.network.num_heads = 3 does not"),
        (RUN, "runs.chars_md4.hardware.num_processes = 2", "runs.chars_md4.hardware.num_processes = 2"),
        (RUN, "lower the dataset's `seq_len`", "lower `datasets.docs_chars.seq_len`"),
        (SOURCE, "narrow its `path` or its `color`", "narrow `sources.digits.path` or its `color`"),
        (
            {"zero_shot.runs": "chars_md4", "zero_shot.sources": "typer_docs"},
            "the source's `path`",
            "`sources.typer_docs.",
        ),
        ({}, "metrics/x.json does not exist", "metrics/x.json does not exist"),
    ],
)
def test_keys_are_completed(params: Params, names: dict[str, str], message: str, expected: str) -> None:
    assert with_full_keys(message, params, names).startswith(expected)


def test_the_tokenizer_names_the_key_to_lower(mdpipe: Callable[..., object], params: Params) -> None:
    data = params.model_dump(mode="json")
    data["datasets"]["docs_subwords"]["tokenizer"]["vocab_size"] = 60_000
    Path("params.yaml").write_text(yaml.safe_dump(data))
    line = mdpipe("fit-tokenizer", "docs_subwords").output  # type: ignore[attr-defined]
    assert line.startswith(
        "mdpipe: datasets.docs_subwords.tokenizer.vocab_size = 60000 is too large for the training text"
    )
    assert "(datasets.docs_subwords.tokenizer.max_train_chars limits it as well)" in line
