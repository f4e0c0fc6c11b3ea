import math
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import Likelihood, zero_shot_bound
from mdpipe.params import EstimatorConfig
from mdpipe.params.diffusion import MD4Config
from tests.data.building import encode_images, make_tokenizer
from tests.data.shards import write_raw

TEXTS = ["Plain text.", "Naïve text, as it is.", "A third one that is somewhat longer than these were."]


@pytest.fixture
def large(network: nn.Module) -> nn.Module:
    """The fixed network for all 256 bytes."""
    return type(network)(256)


def measured(corpus: EncodedDataset, network: nn.Module, settings: EstimatorConfig) -> Likelihood:
    return zero_shot_bound(MD4(MD4Config(), 256), network, corpus, settings, CounterRNG(0, "zero shot"))


def test_all_bits_are_shared_out_over_the_text_without_separators(large: nn.Module, tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "text", [Document(str(n), text) for n, text in enumerate(TEXTS)])
    encode_corpus(tmp_path / "raw", make_tokenizer("bytes"), tmp_path / "corpus", 16)
    corpus = EncodedDataset.open(tmp_path / "corpus", "test")
    likelihood = measured(corpus, large, EstimatorConfig(num_mc_samples=4, batch_size=4))
    characters, size = sum(map(len, TEXTS)), sum(len(text.encode()) for text in TEXTS)
    assert (corpus.counts["characters"], corpus.counts["bytes"]) == (characters, size)
    assert likelihood.tokens == size + len(TEXTS)
    assert likelihood.examples == math.ceil((size + len(TEXTS)) / 16)
    bits = likelihood.value * likelihood.tokens / math.log(2)
    assert likelihood.bits_per(corpus.counts["bytes"]).value == pytest.approx(bits / size)
    assert likelihood.bits_per(corpus.counts["characters"]).value == pytest.approx(bits / characters)
    assert likelihood.bits_per(size).stderr == pytest.approx(likelihood.stderr * likelihood.tokens / math.log(2) / size)


def test_perplexity_is_per_token_with_its_own_error(large: nn.Module, tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "text", [Document(str(n), text) for n, text in enumerate(TEXTS)])
    encode_corpus(tmp_path / "raw", make_tokenizer("bytes"), tmp_path / "corpus", 16)
    likelihood = measured(
        EncodedDataset.open(tmp_path / "corpus", "test"), large, EstimatorConfig(num_mc_samples=4, batch_size=4)
    )
    perplexity = likelihood.perplexity()
    assert perplexity.value == pytest.approx(math.exp(likelihood.value))
    assert perplexity.stderr == pytest.approx(perplexity.value * likelihood.stderr)


def test_images_are_refused_as_corpus(large: nn.Module, tmp_path: Path) -> None:
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    write_raw(tmp_path / "raw", "npy", ImageBatch(images, np.arange(20, dtype=np.int32), maximum=255))
    encode_images(tmp_path / "raw", 256, 4, 4, tmp_path / "images", seed=0, validation=0.2, test=0.2)
    with pytest.raises(ValueError, match="holds image data; zero-shot corpora are text"):
        measured(
            EncodedDataset.open(tmp_path / "images", "test"), large, EstimatorConfig(num_mc_samples=2, batch_size=4)
        )
