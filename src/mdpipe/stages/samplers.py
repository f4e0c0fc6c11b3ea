"""Stage `samplers`: quality against network calls, for every sampler that fits a run.

Quality is how likely samples are under a model that knows the same data and has an exact likelihood: an autoregressive
run, the judge. Samples that are too plain are likely too, so their entropy stands beside it, and the held-out data
themselves are judged in the same way.
"""

import csv
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import build_sampler
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.evaluation.estimate import mean_estimate
from mdpipe.evaluation.quality import generative_bits, unigram_entropy_per_sample
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.stages.model_io import TrainedRun, load_run
from mdpipe.stages.sampling import draw, unknown

DATA = "data"
"""Stands in place of a sampler in the row of the held-out data."""

STREAMS = {
    "ancestral_stepwise": "ancestral",
    "ancestral": "reveal_first",
    "maskgit": "confidence",
    "remdm": "remasking",
    "genmd4_ancestral": "generalized",
}
"""Streams of random numbers with other names than their samplers, so that renaming a sampler changed no result."""

COLUMNS = (
    "run",
    "dataset",
    "judge",
    "sampler",
    "steps",
    "network_calls",
    "samples",
    "unit",
    "bits",
    "bits_stderr",
    "entropy",
    "entropy_stderr",
    "parameters",
)

DIGITS = 6
"""Significant digits of measured numbers in the file."""


def samplers(params: Params, run: str) -> None:
    """Write metrics/samplers/RUN.csv.

    Raises:
        ValueError: a model or the dataset is missing or broken.
    """
    suite = params.samplers
    configure_runtime(threads=1)
    trained, judge = load_run(run), load_run(suite.runs[run].reference_model)
    dataset = EncodedDataset.open(paths.encoded(trained.dataset), "test")
    told = {
        "run": run,
        "dataset": trained.dataset,
        "judge": suite.runs[run].reference_model,
        "unit": trained.unit,
        "parameters": trained.parameters,
    }
    rows = [{**told, "sampler": DATA, **_judged(judge, _whole_windows(dataset))}]
    for config in suite.samplers_for(params.runs[run].objective):
        kind, steps = config.kind, getattr(config, "steps", None)
        noise = CounterRNG(params.seed, f"samplers/{STREAMS.get(kind, kind)}/{steps}")
        drawn = draw(trained, build_sampler(config), unknown(trained, suite.count), noise, choice=TokenSampler())
        row = {"sampler": kind, "steps": steps, "network_calls": drawn.network_calls}
        rows.append({**told, **row, **_judged(judge, drawn.tokens)})
    atomic_write(paths.samplers(run), _csv(rows).encode())


def _whole_windows(dataset: EncodedDataset) -> Tensor:
    windows = [batch for _, batch in dataset.evaluation_batches(1) if batch.shape[1] == dataset.seq_len]
    return torch.from_numpy(np.concatenate(windows))


def _judged(judge: TrainedRun, tokens: Tensor) -> dict[str, Any]:
    bits = mean_estimate(generative_bits(judge.objective, judge.network, tokens))
    entropy = mean_estimate(unigram_entropy_per_sample(tokens.numpy()))
    return {
        "samples": len(tokens),
        "bits": bits.value,
        "bits_stderr": bits.stderr,
        "entropy": entropy.value,
        "entropy_stderr": entropy.stderr,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: f"{value:.{DIGITS}g}" if isinstance(value, float) else value for name, value in row.items()}
        )
    return text.getvalue()
