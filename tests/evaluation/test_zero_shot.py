import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.estimate import ratio_estimate
from mdpipe.evaluation.likelihood import Likelihood, zero_shot_bound
from mdpipe.params import EstimatorConfig
from mdpipe.params.data import PACKINGS
from mdpipe.params.diffusion import MD4Config
from tests.data.builders import encode_images, make_tokenizer
from tests.data.shards import write_raw

TEXTS = ["Plain text.", "Naïve text, as it is.", "A third one that is somewhat longer than these were."]


@pytest.fixture
def large(network: nn.Module) -> nn.Module:
    """The fixed network for all 256 bytes."""
    return type(network)(256)


def measured(corpus: EncodedDataset, network: nn.Module, settings: EstimatorConfig) -> Likelihood:
    np.save(corpus.directory / "unigram.npy", np.arange(256))
    return zero_shot_bound(MD4(MD4Config(), 256), network, corpus, settings, CounterRNG(0, "zero shot"))


def test_all_bits_are_divided_by_the_text_without_separators(large: nn.Module, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("protocol", ["stream", "documents"])
def test_the_error_is_clustered_by_document(large: nn.Module, tmp_path: Path, protocol: str) -> None:
    write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", text * (2 + n % 3)) for n, text in enumerate(3 * TEXTS)])
    encode_corpus(tmp_path / "raw", make_tokenizer("bytes"), tmp_path / "corpus", 16, PACKINGS[protocol])
    corpus = EncodedDataset.open(tmp_path / "corpus", "test")
    likelihood = measured(corpus, large, EstimatorConfig(num_mc_samples=2, batch_size=4))
    kind, documents = corpus.clusters
    residuals = likelihood.per_example - likelihood.value * likelihood.sizes
    squares = sum(residuals[documents == document].sum() ** 2 for document in range(9))
    assert (kind, set(documents)) == ("document", set(range(9)))
    assert likelihood.stderr == pytest.approx(math.sqrt(9 / 8 * squares) / likelihood.tokens)
    assert likelihood.stderr != pytest.approx(ratio_estimate(likelihood.per_example, likelihood.sizes).stderr)


def test_perplexity_is_per_token_with_its_own_error(large: nn.Module, tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "text", [Document(str(n), text) for n, text in enumerate(TEXTS)])
    encode_corpus(tmp_path / "raw", make_tokenizer("bytes"), tmp_path / "corpus", 16)
    likelihood = measured(
        EncodedDataset.open(tmp_path / "corpus", "test"), large, EstimatorConfig(num_mc_samples=4, batch_size=4)
    )
    perplexity = likelihood.perplexity()
    assert perplexity.value == pytest.approx(math.exp(likelihood.value))
    assert perplexity.stderr == pytest.approx(perplexity.value * likelihood.stderr)


class Urn(nn.Module):
    """The exact conditionals of Polya's urn: a token is as likely as it is frequent among those that are unmasked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1 / 8, dtype=torch.float64))

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        counts = nn.functional.one_hot(tokens, 257)[..., :256].sum(dim=1)
        return (counts + self.weight).log()[:, None].expand(-1, tokens.shape[1], -1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden

    def nats(self, window: NDArray[np.int64]) -> float:
        """Return -log p of a window, whatever the order of its tokens."""
        seen, total = np.full(256, self.weight.item()), 0.0
        for token in window.tolist():
            total -= math.log(seen[token] / seen.sum())
            seen[token] += 1
        return total


def cut(tokens: NDArray[np.int64], length: int) -> list[NDArray[np.int64]]:
    """Return consecutive windows, the last of which may be shorter."""
    return [tokens[first : first + length] for first in range(0, len(tokens), length)]


@pytest.mark.parametrize("length", [16, 32])
def test_protocols_differ_by_their_tokens_and_contexts(tmp_path: Path, length: int) -> None:
    """Each has the exact -log p of its windows, under a model that learns from the context which tokens are frequent.

    SEDD's (and MD4's) windows are the stream's without the short last one. MDLM's have two end-of-text tokens each, of
    which the second is cheap, and none of a document.
    """
    texts = [f"document {n}, {'and so on ' * (n % 4)}" for n in range(60)]
    write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", text) for n, text in enumerate(texts)])
    tokenizer, network = make_tokenizer("bytes"), Urn()
    eos = np.array([tokenizer.eos_id])
    documents = [np.concatenate([np.array(list(text.encode())), eos]) for text in texts]
    whole = [window for window in cut(np.concatenate(documents), length) if len(window) == length]
    text = np.concatenate([document[:-1] for document in documents])
    windows = {
        "stream": cut(np.concatenate(documents), length),
        "documents": [window for document in documents for window in cut(document, length)],
        "sedd": whole,
        "mdlm_zero_shot": [
            np.concatenate([eos, window, eos]) for window in cut(text, length - 2) if len(window) == length - 2
        ],
    }
    for protocol, expected in windows.items():
        encode_corpus(tmp_path / "raw", tokenizer, tmp_path / protocol, length, PACKINGS[protocol])
        corpus = EncodedDataset.open(tmp_path / protocol, "test")
        found = measured(corpus, network, EstimatorConfig(num_mc_samples=16))
        assert (found.examples, found.tokens) == (len(expected), sum(map(len, expected)))
        # A true z-score exceeds 5 once in two million runs.
        nats = sum(map(network.nats, expected)) / found.tokens
        assert abs(found.value - nats) < 5 * found.stderr_mc + 1e-4
        assert found.stderr_mc < 0.01 * nats


def test_a_longer_context_lowers_the_bound_of_each_protocol(tmp_path: Path) -> None:
    """Of a model that uses it, in windows of twice the length."""
    texts = [f"{chr(97 + n % 26)} " * 24 for n in range(40)]
    write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", text) for n, text in enumerate(texts)])
    for protocol in ("stream", "documents", "sedd", "mdlm_zero_shot"):
        values = []
        for length in (8, 16, 32):
            encode_corpus(tmp_path / "raw", make_tokenizer("bytes"), tmp_path / "corpus", length, PACKINGS[protocol])
            corpus = EncodedDataset.open(tmp_path / "corpus", "test")
            values.append(measured(corpus, Urn(), EstimatorConfig(num_mc_samples=8)).value)
            shutil.rmtree(tmp_path / "corpus")
        assert values[1] < 0.95 * values[0], protocol
        assert values[2] < 0.95 * values[1], protocol


def test_images_are_refused_as_corpus(large: nn.Module, tmp_path: Path) -> None:
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    write_raw(tmp_path / "raw", "npy", ImageBatch(images, np.arange(20, dtype=np.int32), maximum=255))
    encode_images(tmp_path / "raw", 256, 4, 4, tmp_path / "images", seed=0, validation=0.2, test=0.2)
    with pytest.raises(ValueError, match="holds image data; zero-shot corpora are text"):
        measured(
            EncodedDataset.open(tmp_path / "images", "test"), large, EstimatorConfig(num_mc_samples=2, batch_size=4)
        )
