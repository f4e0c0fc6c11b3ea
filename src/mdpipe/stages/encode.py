"""Stage `encode`: a source, split and tokenized, and what general-purpose compressors make of its held-out parts."""

from mdpipe.data.artifacts.metrics import write_metrics
from mdpipe.data.encode import encode_images, encode_text
from mdpipe.data.encoded import EncodedDataset
from mdpipe.data.splits import SPLITS
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.evaluation.references import reference_rates
from mdpipe.params import Params
from mdpipe.params.data import ImageDataset, modality_of
from mdpipe.stages import paths


def encode(params: Params, dataset: str) -> None:
    """Write data/encoded/DATASET and metrics/encode/DATASET.json.

    Raises:
        ValueError: a split would be empty, or the raw data are missing or broken.
    """
    settings = params.datasets[dataset]
    raw, directory = paths.raw(settings.source), paths.encoded(dataset)
    shares = (params.seed, settings.validation, settings.test)
    if isinstance(settings, ImageDataset):
        encode_images(raw, settings.tokenizer.levels, settings.size, settings.stride, directory, *shares)
    else:
        encode_text(raw, load_tokenizer(paths.tokenizer(dataset)), directory, settings.length, *shares)
    splits = {split: EncodedDataset.open(directory, split) for split in SPLITS}
    rates = [rate for split in ("validation", "test") for rate in reference_rates(splits[split])]
    counts = {split: dict(opened.counts) for split, opened in splits.items()}
    metrics = {"dataset": dataset, "modality": modality_of(settings), "splits": counts, "references": rates}
    write_metrics(paths.metrics("encode", dataset), metrics)
