"""Stage `compare_samplers`: sample quality against network calls, for every sampler that fits a run.

Quality is the likelihood of samples under a reference model: an autoregressive run on the same data, whose likelihood
is exact. Samples that are too simple are likely too, so their entropy is reported as well, and the held-out data are
scored in the same way.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdpipe.data.artifacts.metrics import write_csv
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import build_sampler
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.evaluation.estimate import mean_estimate
from mdpipe.evaluation.quality import generative_bits, unigram_entropy_per_sample
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.stages.model_io import TrainedModel, load_model
from mdpipe.stages.sampling import all_masked, sample

DATA = "data"
"""The name of the held-out data in the column of samplers."""

STREAMS = {
    "ancestral_stepwise": "ancestral",
    "ancestral": "reveal_first",
    "maskgit": "confidence",
    "remdm": "remasking",
    "genmd4_ancestral": "generalized",
}
"""Streams of random numbers with other names than their samplers, so that renaming a sampler changed no result."""

COLUMNS = (
    *("run", "dataset", "reference_model", "sampler", "steps", "nfe", "samples", "unit"),
    *("bits", "bits_stderr", "entropy", "entropy_stderr", "num_parameters"),
)


def compare_samplers(params: Params, run: str) -> None:
    """Write metrics/samplers/RUN.csv.

    Raises:
        ValueError: a model or the dataset is missing or broken.
    """
    suite = params.samplers
    configure_runtime(threads=1)
    model, reference_model = load_model(run), load_model(suite.runs[run].reference_model)
    dataset = EncodedDataset.open(paths.encoded(model.dataset), "test")
    windows = [batch for _, batch in dataset.evaluation_batches(1) if batch.shape[1] == dataset.seq_len]
    rows = [{"sampler": DATA, **_score(reference_model, torch.from_numpy(np.concatenate(windows)))}]
    for config in suite.samplers_for(params.runs[run].objective):
        kind, steps = config.kind, getattr(config, "steps", None)
        rng = CounterRNG(params.seed, f"samplers/{STREAMS.get(kind, kind)}/{steps}")
        tokens = all_masked(model, suite.count)
        samples = sample(model, build_sampler(config), tokens, rng, token_sampler=TokenSampler())
        scores = _score(reference_model, samples.tokens)
        rows.append({"sampler": kind, "steps": steps, "nfe": samples.nfe, **scores})
    common = {
        "run": run,
        "dataset": model.dataset,
        "reference_model": reference_model.name,
        "unit": model.unit,
        "num_parameters": model.num_parameters,
    }
    write_csv(paths.samplers(run), COLUMNS, ([{**common, **row}.get(name) for name in COLUMNS] for row in rows))


def _score(reference_model: TrainedModel, tokens: Tensor) -> dict[str, Any]:
    bits = mean_estimate(generative_bits(reference_model.objective, reference_model.network, tokens))
    entropy = mean_estimate(unigram_entropy_per_sample(tokens.numpy()))
    return {
        "samples": len(tokens),
        "bits": bits.value,
        "bits_stderr": bits.stderr,
        "entropy": entropy.value,
        "entropy_stderr": entropy.stderr,
    }
