"""Trained tokenizers of the `tokenizers` library: text survives, and no document ends itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from tests.data.tokenizers.trained import END, LINES, SPECIAL, from_file, from_gpt2, train

pytestmark = pytest.mark.slow

GPT2 = Path(__file__).parents[3].parent / "shared/data/gpt2_bpe"

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
any_text = st.lists(st.one_of(unicode_text, st.sampled_from([*SPECIAL, "the", " statement"]))).map("".join)


@pytest.mark.slow
@settings(max_examples=300)
@given(text=any_text)
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_id not in ids
    assert all(0 <= id < tokenizer.vocab_size for id in ids)


@given(ids=st.lists(st.integers(0, 299)))
def test_any_ids_decode_to_text(tokenizer, ids):
    tokenizer.decode(np.array(ids, dtype=np.uint16)).encode()


def test_bytes_that_are_no_utf8_become_the_replacement_character(tokenizer):
    first_byte = tokenizer.encode("…")[:1]
    assert tokenizer.decode(first_byte) == "\ufffd"


def test_both_forms_of_equal_byte_pairs_are_one_tokenizer(folder):
    ours, file = from_gpt2(folder), from_file(folder, END)
    assert (ours.kind, ours.vocab_size, ours.eos_id, ours.is_lossless) == ("hf_tokenizer", 300, 0, True)
    assert (file.kind, file.vocab_size, file.eos_id, file.is_lossless) == ("hf_tokenizer", 300, 0, True)
    assert all(ours.encode(line).tolist() == file.encode(line).tolist() for line in LINES)


def test_known_ids_of_a_tiny_vocabulary(tmp_path):
    vocabulary = {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4, "abab": 5, END: 9}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\nab ab\n", encoding="utf-8")
    tiny = from_gpt2(str(tmp_path))
    assert tiny.encode("abab ab ba").tolist() == [5, 4, 2, 1, 0]
    assert tiny.decode(np.array([5, 4, 2, 1, 0])) == "abab ab ba"
    assert tiny.eos_id == 9
    assert tiny.vocab_size == 10  # one more than the largest id, although there are but seven
    assert not tiny.is_lossless  # it has no ids for most bytes


def test_special_tokens_decode_to_nothing(tokenizer):
    ids = [*tokenizer.encode("one"), tokenizer.eos_id, *tokenizer.encode("two")]
    assert tokenizer.decode(np.array(ids)) == "onetwo"


@pytest.mark.parametrize("special", [True, False])
def test_the_literal_end_of_text_is_plain_text(write, special):
    """Nor is any other special token; an added one that is not special remains a token."""
    trained = train()
    trained.add_tokens([AddedToken("<|end|>", special=special), AddedToken("<|word|>", special=False)])
    tokenizer = from_file(write(trained), "<|end|>")
    assert tokenizer.eos_id == 300
    text = f"the<|end|>{END}<|mask|><|word|><|end|>"
    ids = tokenizer.encode(text).tolist()
    assert not {0, 1, 300} & {*ids}
    assert 301 in ids
    assert tokenizer.decode(np.array(ids)) == text
    assert tokenizer.decode(np.array([300])) == ""


@pytest.mark.parametrize("text", ["</s>", "a</s>b", "</s></s>a", "<</s>/s>", "aé</s>"])
def test_an_end_of_text_among_the_ordinary_tokens_is_cut(write, text):
    subwords = [("<unk>", 0.0), ("</s>", -1.0), *((character, -9.0) for character in "ab</s>é")]
    tokenizer = from_file(write(tokenizers.Tokenizer(models.Unigram(subwords, 0))), "</s>")
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.eos_id == 1
    assert [subwords[id][0] for id in ids] == list(text)


def test_an_end_of_text_that_overlaps_itself_is_cut_everywhere(write):
    model = models.BPE({"a": 0, "b": 1, "aa": 2}, [("a", "a")])
    tokenizer = from_file(write(tokenizers.Tokenizer(model)), "aa")
    assert tokenizer.encode("aaaaaba").tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_a_text_with_no_other_id_than_the_end_of_text_is_refused(write):
    tokenizer = from_file(write(train()), "!")
    assert not tokenizer.is_lossless
    with pytest.raises(ValueError, match=r"the text '!' is the end-of-text token .*; choose another eos_token"):
        tokenizer.encode("the value!")


def split(behavior):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), behavior), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )


LOSSY = {
    "normalizer": normalizers.NFC(),
    "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "decoder": decoders.Fuse(),
}


@pytest.mark.parametrize("part", LOSSY)
def test_a_tokenizer_that_alters_text_is_not_lossless(write, part):
    trained = train()
    setattr(trained, part, LOSSY[part])
    assert not from_file(write(trained), END).is_lossless


@pytest.mark.parametrize(("behavior", "lossless"), [("isolated", True), ("merged_with_next", True), ("removed", False)])
def test_splits_before_the_bytes_are_lossless_unless_they_remove(write, behavior, lossless):
    trained = train()
    trained.pre_tokenizer = split(behavior)
    tokenizer = from_file(write(trained), END)
    assert tokenizer.is_lossless is lossless
    assert (tokenizer.decode(tokenizer.encode(LINES[1])) == LINES[1]) is lossless


@pytest.mark.parametrize(
    ("added", "lossless"),
    [
        (AddedToken("    "), True),
        (AddedToken("é"), False),  # its character is another byte in a byte-level vocabulary
        (AddedToken("is", lstrip=True), False),
        (AddedToken("is", rstrip=True), False),
        (AddedToken("is", special=True), False),  # also a merge, so that it is found in text, and decoded to nothing
    ],
)
def test_added_tokens_can_cost_text(write, added, lossless):
    trained = train()
    trained.add_tokens([added])
    tokenizer = from_file(write(trained), END)
    assert tokenizer.is_lossless is lossless
    text = "is naïve é    \n is is true"
    assert (tokenizer.decode(tokenizer.encode(text)) == text) is lossless


@pytest.mark.skipif(not GPT2.is_dir(), reason="GPT-2's vocabulary is not here")
def test_gpt2s_own_ids():
    gpt2 = from_gpt2(GPT2)
    assert (gpt2.vocab_size, gpt2.eos_id, gpt2.is_lossless) == (50257, 50256, True)
    for text, ids in {
        "Hello world": [15496, 995],
        " Hello world": [18435, 995],
        "Hello, world!": [15496, 11, 995, 0],
        END: [27, 91, 437, 1659, 5239, 91, 29],
    }.items():
        assert gpt2.encode(text).tolist() == ids
        assert gpt2.decode(np.array(ids)) == text
    assert gpt2.decode(np.array([15496, 50256, 995])) == "Hello world"
