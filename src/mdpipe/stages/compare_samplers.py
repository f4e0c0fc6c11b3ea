"""Stage `compare_samplers`: sample quality against network calls and temperature, for every sampler that fits a run.

Quality is the likelihood of samples under a reference model: an autoregressive run on the same data, whose likelihood
is exact, or a causal language model of the library `transformers`. Samples that are too simple are likely too, so their
entropy and repetition are reported as well, and the held-out data are scored in the same way. MAUVE compares the
hidden states of the reference model for samples and held-out texts, if it is installed and there are enough of them.

Shapes: N samples, L tokens of each.
"""

import logging
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.data.artifacts.files import write_csv
from mdpipe.data.dataset import EncodedDataset, evenly_spaced
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.diffusion.denoiser import TokenSampler
from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation import quality
from mdpipe.evaluation.estimate import Estimate, mean_estimate
from mdpipe.networks.runtime import compute_device, configure_runtime
from mdpipe.params import Params, SampleConfig
from mdpipe.params.suites import ReferenceModel
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import UNITS, TrainedModel, load_model
from mdpipe.pipeline.sampling import all_masked, classes_in_turn, sample

logger = logging.getLogger(__name__)

DATA = "data"
"""The name of the held-out data in the column of samplers."""

NGRAMS = (1, 2, 3, 4)
"""Lengths of the n-grams whose distinct fraction is reported for text."""

COLUMNS = (
    *("run", "dataset", "reference_model", "sampler", "steps", "temperature", "nfe", "samples", "unit"),
    *("bits", "bits_stderr", "generative_perplexity", "generative_perplexity_stderr"),
    *("generative_perplexity_per_sample", "generative_perplexity_per_sample_stderr"),
    *("entropy", "entropy_stderr", "entropy_per_sample", "entropy_per_sample_stderr"),
    *(f"distinct_{n}{suffix}" for n in NGRAMS for suffix in ("", "_stderr")),
    *("repetition", "repetition_stderr", "longest_run", "longest_run_stderr", "mauve"),
    *("network_dtype", "sampling_dtype", "num_parameters"),
)


class References:
    """The reference models of a run: one on its own tokens, and optionally one on decoded text.

    Args:
        held_out: Texts (N, L) that MAUVE compares as many samples with; None for no MAUVE.
        seed: Seed of MAUVE.
    """

    def __init__(
        self, model: TrainedModel, names: ReferenceModel, held_out: NDArray[np.int64] | None, seed: int
    ) -> None:
        self._model, self._own, self._seed = model, load_model(names.reference_model), seed
        self._causal_lm = names.causal_lm and quality.CausalLM(names.causal_lm, compute_device())
        self._causal_lm_name = names.causal_lm
        self._held_out = None if held_out is None else [*self._features(held_out)]

    def score(
        self, tokens: NDArray[np.int64], classes: Tensor | None, clusters: NDArray[np.int64] | None = None
    ) -> list[dict[str, Any]]:
        """Return the name, unit, generative perplexity and MAUVE of samples (N, L) under each reference model.

        Args:
            classes: Classes (N,) for a class-conditional reference model on the same tokens, or None.
            clusters: Clusters of the held-out data, (N,), which have no MAUVE: it compares samples with them. None for
                samples.
        """
        given = classes if self._own.num_classes else None
        bits = quality.generative_bits(self._own.objective, self._own.network, torch.from_numpy(tokens), given)
        scores = quality.generative_perplexity(bits, np.full(len(tokens), tokens.shape[1]), clusters)
        rows = [{"reference_model": self._own.name, "unit": self._model.unit, **_columns(scores)}]
        if self._causal_lm:
            scores = quality.generative_perplexity(*self._causal_lm.generative_bits(self._texts(tokens)), clusters)
            rows.append({"reference_model": self._causal_lm_name, "unit": UNITS["hf_tokenizer"], **_columns(scores)})
        if self._held_out is not None and clusters is None:
            for row, data, samples in zip(rows, self._held_out, self._features(tokens), strict=True):
                row["mauve"] = quality.mauve(data, samples, self._seed)
        return rows

    def _features(self, tokens: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Yield the features of texts (N, L) by each reference model, (N, D)."""
        objective = cast("Autoregressive", self._own.objective)
        yield quality.final_features(objective, self._own.network, torch.from_numpy(tokens))
        if self._causal_lm:
            yield self._causal_lm.features(self._texts(tokens))

    def _texts(self, tokens: NDArray[np.int64]) -> list[str]:
        return [*map(load_tokenizer(self._model.directory).decode, tokens)]


def compare_samplers(params: Params, run: str) -> None:
    """Write metrics/samplers/RUN.csv.

    Raises:
        ValueError: A model or the dataset is missing or broken.
    """
    suite = params.samplers
    configure_runtime(threads=1)
    model = load_model(run)
    dataset = EncodedDataset.open(paths.encoded(model.dataset), "test")
    windows = [window for window in dataset.evaluation_batches(1) if window[1].shape[1] == dataset.seq_len]
    indices = np.concatenate([index for index, _ in windows])
    held_out, clusters = np.concatenate([tokens for _, tokens in windows]), dataset.clusters[1][indices]
    classes = classes_in_turn(model, suite.count)
    of_data = None if classes is None else torch.from_numpy(dataset.require_labels()[indices])
    spaced = held_out[evenly_spaced(len(held_out), suite.count)]
    is_text = model.modality == "text"
    if is_text and (reason := quality.why_no_mauve(len(spaced))):
        logger.info("no MAUVE of %s: %s", run, reason)
    compared_with = spaced if is_text and not reason else None
    references = References(model, suite.runs[run], compared_with, params.seed)
    common = {"run": run, "dataset": model.dataset, "num_parameters": model.num_parameters}
    rows = [
        {**common, "sampler": DATA, **_diversity(held_out, spaced, is_text, clusters), **scores}
        for scores in references.score(held_out, of_data, clusters)
    ]
    for config in suite.samplers_for(params.runs[run].objective):
        kind, steps = config.kind, getattr(config, "steps", None)
        for temperature in suite.temperatures_for(config):
            # Temperatures share their random numbers, which makes differences between them more certain.
            rng = CounterRNG(params.seed, f"samplers/{kind}/{steps}")
            choice = SampleConfig(sampler=config, temperature=temperature)
            samples = sample(model, choice, all_masked(model, suite.count), rng, class_labels=classes)
            described = {
                **common,
                "sampler": kind,
                "steps": steps,
                "temperature": temperature,
                "nfe": samples.nfe,
                "network_dtype": str(next(model.network.parameters()).dtype).removeprefix("torch."),
                "sampling_dtype": str(TokenSampler().probabilities(torch.zeros(1)).dtype).removeprefix("torch."),
                **_diversity(samples.tokens.numpy(), samples.tokens.numpy(), is_text),
            }
            rows += [{**described, **scores} for scores in references.score(samples.tokens.numpy(), classes)]
    write_csv(paths.plot("samplers", run), COLUMNS, ([row.get(name) for name in COLUMNS] for row in rows))


def _diversity(
    tokens: NDArray[np.int64],
    as_many: NDArray[np.int64],
    is_text: bool,
    clusters: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Return entropies of tokens (N, L) and, for text, the diversity of n-grams.

    Args:
        tokens: Samples or held-out data.
        as_many: The same or part of them, as many as there are samples, since distinct-n depends on their number.
        clusters: The cluster of each, (N,); None if all are independent.
    """
    estimates = {
        "entropy": mean_estimate(quality.unigram_nll_per_sample(tokens), clusters),
        "entropy_per_sample": mean_estimate(quality.unigram_entropy_per_sample(tokens), clusters),
    }
    if is_text and tokens.shape[1] >= max(NGRAMS):
        estimates |= {f"distinct_{n}": quality.distinct_ngrams(as_many, n) for n in NGRAMS}
        estimates["repetition"] = mean_estimate(quality.repetition(tokens), clusters)
        estimates["longest_run"] = mean_estimate(quality.longest_run(tokens), clusters)
    return {"samples": len(tokens), **_columns(estimates)}


def _columns(estimates: dict[str, Estimate]) -> dict[str, float]:
    values = {name: estimate.value for name, estimate in estimates.items()}
    return values | {f"{name}_stderr": estimate.stderr for name, estimate in estimates.items()}
