"""Sample quality: the likelihood is that of a distribution, and unigram entropies average to the entropy."""

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
from mdpipe.evaluation.quality import BATCH_SIZE, generative_bits, unigram_entropy_per_sample
from mdpipe.params.diffusion import AutoregressiveConfig, MD4Config

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


def test_a_reference_model_that_only_has_a_bound_is_refused(network: Any) -> None:
    with pytest.raises(ValueError, match=r"reference model must have an exact likelihood, and has the md4 bound"):
        generative_bits(MD4(MD4Config(), VOCAB_SIZE), network, EVERY_TEXT)


@given(tokens=arrays.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 4)))
def test_mean_unigram_entropy_is_that_of_all_tokens(tokens: np.ndarray) -> None:
    p = np.bincount(tokens.flatten()) / tokens.size
    entropy = -sum(frequency * math.log2(frequency) for frequency in p if frequency)
    assert unigram_entropy_per_sample(tokens).shape == (len(tokens),)
    assert unigram_entropy_per_sample(tokens).mean() == pytest.approx(entropy, abs=1e-9)


def test_texts_of_rare_tokens_have_a_larger_unigram_entropy() -> None:
    """Of eight tokens six are 0, one is 1 and one is 7."""
    tokens = np.array([[0, 0], [0, 1], [0, 0], [7, 0]])
    often, rare = -math.log2(6 / 8), 3
    mixed = (often + rare) / 2
    np.testing.assert_allclose(unigram_entropy_per_sample(tokens), [often, mixed, often, mixed])


def test_the_error_of_the_mean_comes_from_the_spread() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    estimate = mean_estimate(values)
    assert (estimate.value, estimate.stderr) == pytest.approx((4, np.std(values, ddof=1) / 2))
    with pytest.raises(ValueError, match="needs two examples at least"):
        mean_estimate(values[:1])
