"""Stage `tokenizer`: what turns a dataset's text or pixels into tokens, fitted to the training split alone."""

from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.splits import training_texts
from mdpipe.data.tokenizers import fit_tokenizer
from mdpipe.params import Params
from mdpipe.params.data import ImageDataset
from mdpipe.stages import paths


def tokenizer(params: Params, dataset: str) -> None:
    """Write data/tokenizers/DATASET. Letters, bytes and pixels have nothing to learn: they are written as they are.

    Raises:
        ValueError: the text does not support the vocabulary asked for.
    """
    settings = params.datasets[dataset]
    described = settings.tokenizer.model_dump()
    directory = paths.tokenizer(dataset)
    with folder_aside(directory) as folder:
        if isinstance(settings, ImageDataset):
            write_json(folder / "tokenizer.json", described)
        else:
            raw = paths.raw(settings.source)
            texts = training_texts(raw, params.seed, settings.validation, settings.test)
            fit_tokenizer(described.pop("kind"), texts, **described).save(folder)
