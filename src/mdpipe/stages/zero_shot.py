"""Stage `zero_shot`: the likelihood bound of text from a source that a run was not trained on."""

import shutil
import tempfile
from pathlib import Path

from mdpipe.data.artifacts.metrics import write_record
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import zero_shot_bound
from mdpipe.evaluation.references import reference_rates
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.stages.evaluate import bound_record
from mdpipe.stages.model_io import UNIGRAM, load_model

WHOLE = "all"
"""The split of a bound or reference of the whole source."""


def zero_shot(params: Params, run: str, source: str) -> None:
    """Encode the source with the run's tokenizer and bound its likelihood; write the files zero_shot/RUN-SOURCE.

    Raises:
        ValueError: the model or the source is missing or broken.
    """
    configure_runtime(threads=1)
    model = load_model(run)
    with tempfile.TemporaryDirectory(prefix="mdpipe-") as scratch:
        directory = Path(scratch) / source
        packing = params.zero_shot.packing
        encode_corpus(paths.raw(source), load_tokenizer(model.directory), directory, model.shape[0], packing)
        # The unigram reference, like the model, knows only the frequencies of the training data.
        shutil.copyfile(model.directory / UNIGRAM, directory / UNIGRAM)
        corpus = EncodedDataset.open(directory, "test")
        rng = CounterRNG(params.seed, "zero shot")
        likelihood = zero_shot_bound(model.objective, model.network, corpus, params.zero_shot, rng)
        references = [{**rate, "split": WHOLE} for rate in reference_rates(corpus)]
    record = {
        "run": run,
        "dataset": model.dataset,
        "source": source,
        "tokenizer": model.tokenizer,
        "split": WHOLE,
        "seed": params.seed,
        "references": references,
        **bound_record(model, likelihood, corpus.counts),
    }
    name = f"{run}-{source}"
    write_record(record, paths.record("zero_shot", name), paths.metrics("zero_shot", name))
