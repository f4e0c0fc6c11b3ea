"""Stage `tokenizer`: what turns a dataset's text or pixels into tokens, fitted to the training split alone."""

from collections.abc import Iterator

from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.splits.plan import plan_splits, training_texts
from mdpipe.data.tokenizers import fit_tokenizer
from mdpipe.params import Params
from mdpipe.params.data import ImageDataset, TextDataset
from mdpipe.pipeline import paths
from mdpipe.stages.held_out import held_out


def tokenizer(params: Params, dataset: str) -> None:
    """Write data/tokenizers/DATASET. What has nothing to learn is written as it is.

    Raises:
        ValueError: the text does not support the vocabulary asked for, or a tokenizer's file is missing or broken.
    """
    settings = params.datasets[dataset]
    described = settings.tokenizer.model_dump()
    directory = paths.tokenizer(dataset)
    with folder_aside(directory) as folder:
        if isinstance(settings, ImageDataset):
            write_json(folder / "tokenizer.json", described)
        else:
            kind, sample = described.pop("kind"), described.pop("sample", None)
            fit_tokenizer(kind, _texts(params, settings, sample), **described).save(folder)


def _texts(params: Params, settings: TextDataset, sample: int | None) -> Iterator[str]:
    """The texts to learn from; not touched by a tokenizer that learns nothing."""
    validation, test = held_out(settings.validation), held_out(settings.test)
    plan = plan_splits(paths.raw(settings.source), "text", params.seed, validation, test)
    yield from training_texts(plan, sample)
