"""One unit, one meaning: whatever the tokenizer, two rates of a record in the same unit are the same rate."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import Document
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.data.tokenizers.base import Tokenizer
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.evaluation.references import compressor_rates
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params import EstimatorConfig
from mdpipe.params.data import PACKINGS
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.pipeline.model_io import UNITS, TrainedModel
from mdpipe.stages.evaluate import bound_record
from tests.data.builders import make_tokenizer
from tests.data.shards import write_raw

TEXTS = [f"Text {number}, naïve as it is, of {'so many ' * (number % 5)}words." for number in range(30)]


def tokenizer_of(kind: str, folder: Path) -> Tokenizer:
    """A tokenizer of the kind; the lossy one of `hf_tokenizer` has only lower-case words."""
    if kind == "sentencepiece":
        return make_tokenizer("sentencepiece", TEXTS, vocab_size=288)
    if kind != "hf_tokenizer":
        return make_tokenizer(kind)
    words = sorted({word for text in TEXTS for word in text.lower().replace(",", " ").replace(".", " ").split()})
    model = {"type": "WordLevel", "unk_token": "[UNK]"}
    model["vocab"] = {word: number for number, word in enumerate(["[SEP]", "[UNK]", ",", ".", *words])}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": number, "content": content, **special} for number, content in enumerate(["[SEP]", "[UNK]"])]
    content = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None}
    content |= {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    content |= {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}, "model": model}
    (folder / "words.json").write_text(json.dumps(content))
    return make_tokenizer("hf_tokenizer", path=str(folder / "words.json"), revision=None, eos_token="[SEP]")


@pytest.mark.parametrize("convention", ["stream", "mdlm"])
@pytest.mark.parametrize("kind", sorted(UNITS.keys() - {"pixels"}))
def test_rates_in_one_unit_are_one_rate(tmp_path: Path, kind: str, convention: str) -> None:
    """All of them are the same bits, divided by tokens, bytes, characters or words of the text."""
    write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", text) for n, text in enumerate(TEXTS)])
    tokenizer = tokenizer_of(kind, tmp_path)
    encode_corpus(tmp_path / "raw", tokenizer, tmp_path / "corpus", 16, PACKINGS[convention])
    corpus = EncodedDataset.open(tmp_path / "corpus", "test")
    objective = MD4(MD4Config(), corpus.vocab_size)
    network = build_network(
        NetworkSpec(TransformerConfig(num_layers=1, num_heads=1, hidden_size=8), corpus.vocab_size, (16,)), seed=0
    )
    np.save(corpus.directory / "unigram.npy", np.ones(corpus.vocab_size, dtype=np.int64))
    likelihood = likelihood_bound(objective, network, corpus, EstimatorConfig(num_mc_samples=2), CounterRNG(0, "units"))
    trained = TrainedModel(network, objective, tmp_path, "corpus", "text", kind, (16,), 0, ())
    found = bound_record(trained, likelihood, corpus)
    counts = {"bits/token": "tokens", "bits/byte": "bytes", "bits/char": "characters", "bits/word": "words"}
    bits = float(likelihood.per_example.sum()) / math.log(2)
    rates = [(found["unit"], found["value"]), ("bits/byte", found["bits_per_byte"])]
    for unit, value in [*rates, ("bits/char", found["bits_per_char"])]:
        assert value == pytest.approx(bits / corpus.counts[counts[unit]])
    assert found["words"] == corpus.counts["words"] > 0
    assert found["bits_per_word"] == pytest.approx(bits / found["words"])
    assert found["word_perplexity"] == pytest.approx(2 ** found["bits_per_word"])
    # The tangent of 2^x.
    error = math.log(2) * found["word_perplexity"] * found["bits_per_word_stderr"]
    assert found["word_perplexity_stderr"] == pytest.approx(error)
    for rate in compressor_rates(corpus):
        size = rate["value"] * corpus.counts[counts[rate["unit"]]] / 8
        assert size == pytest.approx(round(size))
