"""Fixtures of the Hugging Face tokenizers: one that is trained here, read from GPT-2's two files and from its own."""

from functools import partial

import pytest

from tests.data.tokenizers.trained import read_as, save_both, write_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_both(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module", params=["gpt2", "file"])
def tokenizer(request, folder):
    return read_as(request.param, folder)


@pytest.fixture
def write(tmp_path):
    """write(tokenizer): its tokenizer.json."""
    return partial(write_in, tmp_path)
