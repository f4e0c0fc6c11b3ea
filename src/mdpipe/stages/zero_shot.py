"""Stage `zero_shot`: the likelihood bound of text of a kind that a run was not trained on."""

import shutil
import tempfile
from pathlib import Path

from mdpipe.data.artifacts.metrics import write_metrics
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import zero_shot_bound
from mdpipe.evaluation.references import reference_rates
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.stages.bound_metrics import bound_metrics
from mdpipe.stages.model_io import UNIGRAM, load_run

WHOLE = "all"
"""The split of a bound, or of a reference, that is of the whole source."""


def zero_shot(params: Params, run: str, source: str) -> None:
    """Encode the source with the run's tokenizer and bound it; write metrics/zero_shot/RUN-SOURCE.json.

    Raises:
        ValueError: the model or the source is missing or broken.
    """
    configure_runtime(threads=1)
    trained = load_run(run)
    with tempfile.TemporaryDirectory(prefix="mdpipe-") as scratch:
        directory = Path(scratch) / source
        packing = params.zero_shot.packing
        encode_corpus(paths.raw(source), load_tokenizer(trained.directory), directory, trained.shape[0], packing)
        # The unigram reference, like the model, knows the frequencies of the training data alone.
        shutil.copyfile(trained.directory / UNIGRAM, directory / UNIGRAM)
        corpus = EncodedDataset.open(directory, "test")
        noise = CounterRNG(params.seed, "zero shot")
        likelihood = zero_shot_bound(trained.objective, trained.network, corpus, params.zero_shot, noise)
        references = [{**rate, "split": WHOLE} for rate in reference_rates(corpus)]
    metrics = {
        "run": run,
        "dataset": trained.dataset,
        "source": source,
        "tokenizer": trained.tokenizer,
        "split": WHOLE,
        "seed": params.seed,
        "references": references,
        **bound_metrics(trained, likelihood, corpus.counts),
    }
    write_metrics(paths.metrics("zero_shot", f"{run}-{source}"), metrics)
