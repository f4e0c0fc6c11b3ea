"""What all tokenizers have in common."""

import pytest

from mdpipe.data.tokenizers import fit_tokenizer, load_tokenizer

KINDS = [("letters", {}), ("bytes", {}), ("pieces", {"vocabulary": 400})]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_saved_tokenizer_comes_back(articles, tmp_path, kind, settings):
    tokenizer = fit_tokenizer(kind, articles, **settings)
    tokenizer.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert (back.kind, back.vocabulary, back.separator, back.lossless) == (
        tokenizer.kind,
        tokenizer.vocabulary,
        tokenizer.separator,
        tokenizer.lossless,
    )
    text = "The model, 12\nnaïve"
    assert back.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert all(0 <= id < back.vocabulary for id in back.separator)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_an_empty_text_has_no_ids_and_no_ids_an_empty_text(articles, kind, settings):
    tokenizer = fit_tokenizer(kind, articles, **settings)
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode(tokenizer.encode("")) == ""


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer\.kind = 'words' is not one of letters, bytes, pieces"):
        fit_tokenizer("words", [])


@pytest.mark.parametrize("content", [None, "", "{}", '{"kind": "words"}'])
def test_a_damaged_tokenizer_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json .*; run the stage that wrote"):
        load_tokenizer(tmp_path)
