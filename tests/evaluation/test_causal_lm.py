"""Perplexity under a model of the library transformers: a tiny GPT-2 with random weights, saved to disk."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mdpipe.evaluation.quality import CausalLM

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.slow

LETTERS = "abcdefgh"
EOS, CONTEXT = "<|endoftext|>", 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gpt2")
    vocabulary = {token: row for row, token in enumerate([*LETTERS, EOS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS).save_pretrained(place)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT, "initializer_range": 0.5}
    config = transformers.GPT2Config(vocab_size=len(vocabulary), eos_token_id=len(LETTERS), **sizes)
    with torch.random.fork_rng():  # transformers draws initial weights from the process-wide stream.
        torch.manual_seed(0)
        transformers.GPT2LMHeadModel(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def causal_lm(folder: Path) -> CausalLM:
    return CausalLM(str(folder), torch.device("cpu"))


def bits_by_chaining(folder: Path, ids: list[int]) -> list[float]:
    """Return the bits of every token but the first, each from a pass over the tokens before it only."""
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        log_p = [model(torch.tensor([ids[:at]])).logits[0, -1].log_softmax(0) for at in range(1, len(ids))]
    return [-float(row[token]) / math.log(2) for row, token in zip(log_p, ids[1:], strict=True)]


def test_bits_are_those_of_the_chain_rule(folder, causal_lm):
    bits, counts = causal_lm.generative_bits(["abca", "hgfedcba"])
    assert counts.tolist() == [3, 7]
    expected = [np.mean(bits_by_chaining(folder, ids)) for ids in ([0, 1, 2, 0], [7, 6, 5, 4, 3, 2, 1, 0])]
    np.testing.assert_allclose(bits, expected, rtol=1e-5)


def test_the_first_end_of_text_counts_and_later_ones_do_not(folder, causal_lm):
    bits, counts = causal_lm.generative_bits([f"ab{EOS}c{EOS}d"])
    chain = bits_by_chaining(folder, [0, 1, 8, 2, 8, 3])
    assert counts.tolist() == [4]
    assert bits[0] == pytest.approx(np.mean([*chain[:3], chain[4]]), rel=1e-5)


def test_a_text_is_cut_to_the_context_of_the_model(causal_lm):
    text = "abcdefgh" * 3
    (whole, cut), counts = causal_lm.generative_bits([text, text[:CONTEXT]])
    assert counts.tolist() == [CONTEXT - 1] * 2
    assert whole == cut


def test_bits_do_not_depend_on_the_other_texts(causal_lm):
    texts = ["abc", "hhhhhhhh", "ce"]
    alone = [causal_lm.generative_bits([text])[0][0] for text in texts]
    assert causal_lm.generative_bits(texts)[0].tolist() == alone


def test_a_text_of_one_token_has_no_bits(causal_lm):
    bits, counts = causal_lm.generative_bits(["", "a", EOS + EOS])
    assert bits.tolist() == counts.tolist() == [0, 0, 0]


def test_features_are_the_last_state_of_a_text(folder, causal_lm):
    """Whatever other texts there are; a text is cut to the context, and one without tokens has zeros."""
    model = transformers.GPT2Model.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = [model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in ([0, 1, 2], CONTEXT * [3])]
    found = causal_lm.features(["abc", "", (CONTEXT + 5) * "d"])
    np.testing.assert_allclose(found, [expected[0], np.zeros(16), expected[1]], rtol=1e-5)
