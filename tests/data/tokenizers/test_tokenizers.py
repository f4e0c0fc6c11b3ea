"""What all tokenizers have in common."""

import pytest

from mdpipe.data.tokenizers import load_tokenizer
from tests.data.building import make_tokenizer

KINDS = [("text8", {}), ("bytes", {}), ("sentencepiece", {"vocab_size": 400})]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_saved_tokenizer_comes_back(articles, tmp_path, kind, settings):
    tokenizer = make_tokenizer(kind, articles, **settings)
    tokenizer.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert (back.kind, back.vocab_size, back.eos_id, back.is_lossless) == (
        tokenizer.kind,
        tokenizer.vocab_size,
        tokenizer.eos_id,
        tokenizer.is_lossless,
    )
    text = "The model, 12\nnaïve"
    assert back.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert 0 <= back.eos_id < back.vocab_size


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_an_empty_text_has_no_ids_and_no_ids_an_empty_text(articles, kind, settings):
    tokenizer = make_tokenizer(kind, articles, **settings)
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode(tokenizer.encode("")) == ""


@pytest.mark.parametrize("content", [None, "", "{}", '{"kind": "words"}', '{"kind": "letters", "vocabulary": 27}'])
def test_a_damaged_tokenizer_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json .*; run the stage that wrote"):
        load_tokenizer(tmp_path)
