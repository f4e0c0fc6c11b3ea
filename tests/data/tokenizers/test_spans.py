"""Prompts and the text around gaps: a sample contains them, or the tokenizer refuses them."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.data.tokenizers import END_OF_DOCUMENT, decode_for_people
from tests.data.builders import make_tokenizer
from tests.data.shards import make_documents, write_texts
from tests.data.tokenizers.trained import SPECIAL, of_every_kind

KINDS = [
    "text8",
    "bytes",
    "sentencepiece",
    "bpe",
    "bpe_nfc",
    "bpe_prefix_space",
    "wordpiece",
    "wordpiece_cased",
    "unigram_metaspace",
    "unigram_t5",
    "bpe_metaspace",
    "bpe_byte_fallback",
    "bpe_suffix",
    "words",
]
known = st.sampled_from(
    ["the", " value", " is ", "true\n", "stat", "ement", "naïve", ", ", "  ", "\t", " ", "12", "T", "é"]
)
anything = st.one_of(known, st.sampled_from(SPECIAL), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
part_of_known = st.lists(known, max_size=5).map("".join)
part_of_anything = st.lists(anything, max_size=5).map("".join)


@pytest.fixture(scope="module")
def tokenizers(subwords, tmp_path_factory):
    trained = of_every_kind(tmp_path_factory.mktemp("kinds"))
    return {kind: make_tokenizer(kind) for kind in ("text8", "bytes")} | {"sentencepiece": subwords} | trained


def unaccented(text):
    """The letters of a text without case, accents and white space: what normalizers keep."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    return [letter for letter in letters if unicodedata.category(letter)[0] not in "CMZ"]


def sampled(tokenizer, spans, gaps):
    return np.concatenate([ids for pair in zip([span.ids for span in spans], gaps, strict=True) for ids in pair])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.one_of(part_of_known, part_of_anything), min_size=1, max_size=3), data=st.data())
def test_every_sample_contains_the_text_around_its_gaps(tokenizers, kind, parts, data):
    """Whatever tokens are sampled; text that a tokenizer cannot spell is refused instead."""
    tokenizer = tokenizers[kind]
    spans = []
    for part in parts:
        try:
            spans.append(tokenizer.encode_span(part, begins=not spans))
        except ValueError as refusal:
            assert repr(part) in str(refusal)
            assert not tokenizer.is_lossless
            return
    ids = st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=1, max_size=4).map(np.array)
    text = tokenizer.decode(sampled(tokenizer, spans, [data.draw(ids) for _ in spans]))
    position = 0
    for number, (part, span) in enumerate(zip(parts, spans, strict=True)):
        # A space before the first word of a text is not shown, nor is a word's end in the middle of one.
        shown = span.text if number and parts[0].strip() and kind != "bpe_suffix" else span.text.strip()
        assert shown in text[position:]
        position = text.index(shown, position) + len(shown)
        if tokenizer.is_lossless:
            assert span.text == part
        elif kind != "text8":
            assert unaccented(span.text) == unaccented(part)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [["the value"], ["the", " value", " is"], ["the", ", is"]])
def test_known_words_come_back_unchanged(tokenizers, kind, parts):
    spans = [tokenizers[kind].encode_span(part, begins=not number) for number, part in enumerate(parts)]
    altered = {("text8", ", is"): " is", ("bpe_prefix_space", parts[0]): f" {parts[0]}"}
    assert [span.text for span in spans] == [altered.get((kind, part), part) for part in parts]


@pytest.mark.parametrize(
    ("kind", "text", "read"),
    [
        ("text8", "漢字", None),
        ("text8", "Fields, 2 of", "fields two of"),
        ("bpe_nfc", "nai\u0308ve", "naïve"),
        ("wordpiece", "The NAÏVE value ", "the naive value"),
        ("wordpiece", "the zoo", None),
        ("wordpiece_cased", "TRUE", None),
        ("unigram_metaspace", "the 漢 value", None),
        ("unigram_t5", "the  value", "the value"),
        ("bpe_metaspace", "a\u2581b", None),
        ("bpe_byte_fallback", "漢字", "漢字"),
        ("words", "the\nvalue", "the value"),
    ],
)
def test_what_a_tokenizer_cannot_spell_is_refused(tokenizers, kind, text, read):
    if read is None:
        with pytest.raises(ValueError, match=r"tokenizer .*(keeps nothing of|cannot spell) '.*'"):
            tokenizers[kind].encode_span(text, begins=True)
    else:
        assert tokenizers[kind].encode_span(text, begins=True).text == read


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text8"])
@settings(max_examples=100, deadline=None)
@given(text=part_of_anything)
def test_no_text_contains_the_end_of_text(tokenizers, kind, text):
    """NUL, the names of special and control tokens are text like any other."""
    tokenizer = tokenizers[kind]
    assert tokenizer.eos_id not in tokenizer.encode(text)


def test_characters_beside_broken_bytes_survive(tokenizers):
    """The library by itself replaces every byte of a run in which one is wrong."""
    tokenizer = tokenizers["bpe_byte_fallback"]
    ids = tokenizer.encode_span("漢字", begins=True).ids
    assert tokenizer.decode(np.append(ids, ids[-3])) == "漢字\ufffd"


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_document_ends_is_shown_on_its_own_line(tokenizers, kind, tmp_path):
    """In encoded data as in samples; text8 has a space there, which is between words as well."""
    tokenizer, texts = tokenizers[kind], ["the value is true", "statement, the value"]
    encode_corpus(write_texts(tmp_path / "r", make_documents(texts)), tokenizer, tmp_path / "e", seq_len=8)
    tokens = np.array(EncodedDataset.open(tmp_path / "e", "test").tokens)
    if kind == "text8":
        assert decode_for_people(tokenizer, tokens) == "the value is true statement the value "
        return
    shown = [tokenizer.decode(tokenizer.encode(text)) for text in texts]
    assert decode_for_people(tokenizer, tokens).split(f"\n{END_OF_DOCUMENT}\n") == [*shown, ""]
    assert END_OF_DOCUMENT not in tokenizer.decode(tokens)
