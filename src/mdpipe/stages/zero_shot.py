"""Stage `zero_shot`: the likelihood bound of text from a source that a run was not trained on."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mdpipe.data.artifacts.files import RESULTS, hash_file, write_record
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.conditional import sliding_bound
from mdpipe.evaluation.references import reference_rates
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import UNIGRAM, load_model
from mdpipe.stages.evaluate import bound_record, write_evaluation

WHOLE = "all"
"""The split of a bound or reference of the whole source."""


def zero_shot(params: Params, run: str, source: str) -> None:
    """Bound the likelihood of the source under each of its protocols; write the files zero_shot/RUN-SOURCE.

    The corpus is encoded with the run's tokenizer. The metrics file has the results of the first protocol, and so has
    evaluations/zero_shot/RUN-SOURCE.npy, float64 (N, 3): nats, tokens and cluster of every window.

    Raises:
        ValueError: The model or the source is missing or broken.
    """
    configure_runtime(threads=1)
    settings = params.zero_shot
    model = load_model(run)
    tokenizer = load_tokenizer(model.directory)
    bounds: list[dict[str, Any]] = []
    for protocol, convention in settings.sources[source].items():
        with tempfile.TemporaryDirectory(prefix="mdpipe-") as temporary:
            directory = Path(temporary) / source
            encode_corpus(paths.raw(source), tokenizer, directory, model.shape[0], convention)
            # The unigram reference, like the model, knows only the frequencies of the training data.
            shutil.copyfile(model.directory / UNIGRAM, directory / UNIGRAM)
            corpus = EncodedDataset.open(directory, "test")
            rng = CounterRNG(params.seed, "zero shot")
            stride = convention.stride or corpus.stream_tokens
            likelihood = sliding_bound(model.objective, model.network, corpus, stride, settings, rng)
            references = [{**rate, "split": WHOLE} for rate in reference_rates(corpus)]
            clustered_by, clusters = corpus.window_clusters(stride)
        if not bounds:
            costs = [likelihood.per_example, likelihood.sizes, clusters]
            write_evaluation(paths.zero_shot_evaluation(run, source), costs)
        bound = bound_record(model, likelihood, corpus)
        bound |= {"clustered_by": clustered_by, "clusters": len(np.unique(clusters))}
        bounds.append({"protocol": protocol, **bound, "references": references})
    # The SHA-256 of the SHA-256 of each shard of documents, which depends on no tokenizer and no protocol.
    hashes = [hash_file(shard) for shard in sorted(paths.raw(source).glob("documents-*.jsonl"))]
    record = {
        "run": run,
        "dataset": model.dataset,
        "source": source,
        "tokenizer": model.tokenizer,
        "split": WHOLE,
        "seed": params.seed_of(run),
        "content_hash": hashlib.sha256(bytes.fromhex("".join(hashes))).hexdigest(),
        "bounds": bounds,
        **{name: bounds[0][name] for name in RESULTS if name in bounds[0]},
    }
    name = f"{run}-{source}"
    write_record(record, paths.record("zero_shot", name), paths.metrics("zero_shot", name))
