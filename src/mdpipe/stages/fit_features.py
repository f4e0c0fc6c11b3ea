"""Stage `fit_features`: a feature network of images, and the features of its dataset's splits."""

import logging

from mdpipe.data.artifacts.files import atomic_dir, read_header, write_record
from mdpipe.data.dataset import DatasetHeader, EncodedDataset, evenly_spaced
from mdpipe.evaluation import image_features
from mdpipe.evaluation.estimate import NORMAL_95, Estimate
from mdpipe.networks.runtime import compute_device, configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths

logger = logging.getLogger(__name__)

ACCURACY_SPLIT = "test"
"""The split of the accuracy."""


def fit_features(params: Params, name: str) -> None:
    """Write data/features/NAME, and the metrics and record features/NAME.

    model.safetensors, features.json    the network
    SPLIT.safetensors                   features and logits of evenly spaced images of each split

    Raises:
        ValueError: The dataset or the file of weights is missing or broken.
    """
    config = params.image_quality.features[name]
    configure_runtime(threads=1)
    directory, device = paths.encoded(config.dataset), compute_device()
    header = read_header(directory / "dataset.json", DatasetHeader, f"run `dvc repro encode@{config.dataset}` again")
    network, metadata = image_features.build_features(
        config, EncodedDataset.open(directory, "train"), params.seed, device
    )
    counts: dict[str, int] = {}
    with atomic_dir(paths.features(name)) as folder:
        image_features.save_features(folder, network, metadata)
        for split in sorted(header.splits):
            dataset = EncodedDataset.open(directory, split)
            chosen = evenly_spaced(len(dataset.tokens), config.max_images)
            found = image_features.extract(network, image_features.pixels_of(dataset, chosen), device)
            image_features.save_split(found, folder / f"{split}.safetensors")
            counts[split] = len(chosen)
    record = {**metadata, "images": counts, "seed": params.seed, "split": ACCURACY_SPLIT, "features": name}
    if isinstance(network, image_features.ImageCNN):
        held_out = EncodedDataset.open(directory, ACCURACY_SPLIT)
        correct = image_features.accuracy(network, held_out, device)
        record |= {"accuracy": correct.value, "accuracy_stderr": correct.stderr}
        _warn_at_chance_level(name, correct, image_features.chance_level(held_out))
    write_record(record, paths.record("features", name), paths.metrics("features", name))


def _warn_at_chance_level(name: str, correct: Estimate, chance: float) -> None:
    """Log a warning unless the 95 % interval of the accuracy is above the chance level."""
    if correct.value - NORMAL_95 * correct.stderr <= chance:
        logger.warning(
            "image_quality.features.%s: the network's accuracy on held-out images is %.3f ± %.3f, not clearly above"
            " chance (%.3f): numbers of its features, such as FID, mean little; train it on more images or longer",
            name,
            correct.value,
            correct.stderr,
            chance,
        )
