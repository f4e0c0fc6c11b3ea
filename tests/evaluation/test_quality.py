"""Sample quality: the likelihood is that of a distribution, entropies and n-grams are those counted by hand."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.evaluation.estimate import mean_estimate
from mdpipe.evaluation.quality import (
    BATCH_SIZE,
    distinct_ngrams,
    generative_bits,
    generative_perplexity,
    longest_run,
    repetition,
    unigram_entropy_per_sample,
    unigram_nll_per_sample,
)
from mdpipe.networks.transformer import Transformer
from mdpipe.params.diffusion import AutoregressiveConfig, MD4Config
from mdpipe.params.networks import TransformerConfig

VOCAB_SIZE, LENGTH = 3, 5
EVERY_TEXT = torch.tensor(list(product(range(VOCAB_SIZE), repeat=LENGTH)))
"""More than the reference model reads at once."""


def test_probabilities_of_all_texts_add_up_to_one(network: Any) -> None:
    assert len(EVERY_TEXT) > BATCH_SIZE
    bits = generative_bits(Autoregressive(AutoregressiveConfig(), VOCAB_SIZE), network, EVERY_TEXT)
    assert bits.shape == (len(EVERY_TEXT),)
    assert np.exp2(-bits * LENGTH).sum() == pytest.approx(1, abs=1e-5)


def test_bits_are_those_of_one_token_after_the_other(network: Any) -> None:
    """For each token the network reads only the mask and the tokens before it."""
    expected = np.zeros(len(EVERY_TEXT))
    for place in range(LENGTH):
        begin = torch.full((len(EVERY_TEXT), 1), VOCAB_SIZE)
        hidden = network(torch.cat([begin, EVERY_TEXT[:, :place]], dim=1), torch.zeros(len(EVERY_TEXT)), None)
        log_p = network.head(hidden[:, -1]).double().log_softmax(dim=-1)
        expected -= log_p.gather(1, EVERY_TEXT[:, place, None]).squeeze(1).detach().numpy()
    bits = generative_bits(Autoregressive(AutoregressiveConfig(), VOCAB_SIZE), network, EVERY_TEXT)
    np.testing.assert_allclose(bits, expected / (LENGTH * math.log(2)), atol=1e-6)


def test_bits_under_a_class_conditional_model_are_per_class() -> None:
    config = TransformerConfig(num_layers=1, num_heads=2, hidden_size=8, time_conditioning=False)
    causal = Transformer(config, VOCAB_SIZE, (LENGTH,), num_classes=2, causal=True)
    causal.init_weights(torch.Generator().manual_seed(0))
    for weight in causal.parameters():
        torch.nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(weight.numel()))
    objective = Autoregressive(AutoregressiveConfig(), VOCAB_SIZE)
    ones = torch.ones(len(EVERY_TEXT), dtype=torch.int64)
    first, second = (generative_bits(objective, causal, EVERY_TEXT, label * ones) for label in (0, 1))
    for bits in (first, second):
        assert np.exp2(-bits * LENGTH).sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(first - second).max() > 0.1
    mixed = torch.arange(len(EVERY_TEXT)) % 2
    bits = generative_bits(objective, causal, EVERY_TEXT, mixed)
    np.testing.assert_allclose(bits, np.where(mixed == 0, first, second), rtol=1e-6)


def test_a_reference_model_that_only_has_a_bound_is_refused(network: Any) -> None:
    with pytest.raises(ValueError, match=r"reference model must have an exact likelihood, and has the md4 bound"):
        generative_bits(MD4(MD4Config(), VOCAB_SIZE), network, EVERY_TEXT)


@given(tokens=arrays.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 4)))
def test_mean_unigram_entropy_is_that_of_all_tokens(tokens: np.ndarray) -> None:
    p = np.bincount(tokens.flatten()) / tokens.size
    entropy = -sum(frequency * math.log2(frequency) for frequency in p if frequency)
    assert unigram_nll_per_sample(tokens).shape == (len(tokens),)
    assert unigram_nll_per_sample(tokens).mean() == pytest.approx(entropy, abs=1e-9)


def test_texts_of_rare_tokens_have_a_larger_nll() -> None:
    """Of eight tokens six are 0, one is 1 and one is 7."""
    tokens = np.array([[0, 0], [0, 1], [0, 0], [7, 0]])
    often, rare = -math.log2(6 / 8), 3
    mixed = (often + rare) / 2
    np.testing.assert_allclose(unigram_nll_per_sample(tokens), [often, mixed, often, mixed])


def test_the_error_of_the_mean_comes_from_the_spread() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    estimate = mean_estimate(values)
    assert (estimate.value, estimate.stderr) == pytest.approx((4, np.std(values, ddof=1) / 2))
    with pytest.raises(ValueError, match="needs two examples at least"):
        mean_estimate(values[:1])


def test_entropy_per_sample_is_that_of_its_own_frequencies() -> None:
    tokens = np.array([[3, 3, 3, 3], [3, 5, 3, 5], [0, 1, 2, 3], [7, 7, 7, 1]])
    skewed = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    np.testing.assert_allclose(unigram_entropy_per_sample(tokens), [0, 1, 2, skewed], atol=1e-12)


def test_perplexity_pools_tokens_or_averages_samples() -> None:
    """Samples of 1 and 3 bits: 2^2 of the pooled tokens if they are equally long, and (2 + 8) / 2 of the samples."""
    found = generative_perplexity(np.array([1.0, 3.0, 0.0]), np.array([10, 10, 0]))
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(
        {"bits": 2, "generative_perplexity": 4, "generative_perplexity_per_sample": 5}
    )
    errors = (1, 4 * math.log(2), 3)
    assert tuple(estimate.stderr for estimate in found.values()) == pytest.approx(errors)
    uneven = generative_perplexity(np.array([1.0, 3.0]), np.array([30, 10]))
    assert uneven["bits"].value == pytest.approx(1.5)
    assert uneven["generative_perplexity_per_sample"].value == pytest.approx(5)


def test_distinct_ngrams_are_those_counted_by_hand() -> None:
    """Bigrams 01 10 01, 01 12 22, none across the samples."""
    tokens = np.array([[0, 1, 0, 1], [0, 1, 2, 2]])
    assert distinct_ngrams(tokens, 1).value == 3 / 8
    assert distinct_ngrams(tokens, 2).value == 4 / 6
    assert distinct_ngrams(tokens, 4).value == 2 / 2


@given(
    tokens=arrays.arrays(np.int64, st.tuples(st.integers(2, 6), st.integers(3, 8)), elements=st.integers(0, 2)),
    n=st.integers(1, 3),
)
def test_the_error_of_distinct_ngrams_leaves_out_one_sample_each(tokens: np.ndarray, n: int) -> None:
    without_one = [distinct_by_set(np.delete(tokens, row, axis=0), n) for row in range(len(tokens))]
    jackknife = math.sqrt((len(tokens) - 1) * np.var(without_one))
    found = distinct_ngrams(tokens, n)
    assert found.value == pytest.approx(distinct_by_set(tokens, n))
    assert found.stderr == pytest.approx(jackknife, abs=1e-12)


def distinct_by_set(tokens: np.ndarray, n: int) -> float:
    ngrams = [tuple(text[at : at + n]) for text in tokens.tolist() for at in range(len(text) - n + 1)]
    return len(set(ngrams)) / len(ngrams)


def test_repetition_is_the_fraction_of_ngrams_seen_before() -> None:
    """Of five 4-grams all are equal, one comes twice, or none does; another sample's do not count."""
    tokens = np.array([[0] * 8, [0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]])
    np.testing.assert_allclose(repetition(tokens), [4 / 5, 1 / 5, 0])


def test_longest_run_is_of_one_token() -> None:
    tokens = np.array([[4, 4, 4, 4], [0, 1, 0, 1], [2, 2, 7, 7], [1, 5, 5, 5]])
    assert longest_run(tokens).tolist() == [4, 1, 2, 3]
