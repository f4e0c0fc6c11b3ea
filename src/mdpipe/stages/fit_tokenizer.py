"""Stage `fit_tokenizer`: fit a dataset's tokenizer to its training split."""

from mdpipe.data.artifacts.files import atomic_dir, write_json
from mdpipe.data.splits import plan_splits, training_texts
from mdpipe.data.tokenizers import build_tokenizer
from mdpipe.params import Params
from mdpipe.params.data import ImageDataset, SentencePieceTokenizer
from mdpipe.pipeline import paths


def fit_tokenizer(params: Params, dataset: str) -> None:
    """Write data/tokenizers/DATASET.

    Raises:
        ValueError: The training text is too small for the vocabulary, or a tokenizer's file is missing or broken.
    """
    settings = params.datasets[dataset]
    config = settings.tokenizer
    with atomic_dir(paths.tokenizer(dataset)) as folder:
        if isinstance(settings, ImageDataset):
            write_json(folder / "tokenizer.json", config.model_dump())
        elif isinstance(config, SentencePieceTokenizer):
            plan = plan_splits(paths.raw(settings.source), "text", params.seed, settings.splits)
            build_tokenizer(config, training_texts(plan, config.max_train_chars)).save(folder)
        else:
            build_tokenizer(settings.tokenizer).save(folder)
