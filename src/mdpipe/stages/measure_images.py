"""Stage `measure_images`: samples of a run of images against real images.

The rows of a record are sets of images against reference images: the samples against the held-out and the training
split, for comparison real images and noise in the place of the samples, and then the samples of further samplers.

Shapes: N samples, L tokens of each.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.artifacts.files import write_record
from mdpipe.data.dataset import EncodedDataset, evenly_spaced
from mdpipe.data.pixels import to_images
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation import image_features, image_quality
from mdpipe.networks.runtime import compute_device, configure_runtime
from mdpipe.params import Params
from mdpipe.params.sampling import SamplerConfig
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import TrainedModel, load_model
from mdpipe.pipeline.sampling import all_masked, classes_in_turn, sample
from mdpipe.reporting.images import Neighbors, Pixels, neighbor_sheet, save_png

STREAM = "image quality"
"""The stream of the samples' random numbers."""
METRICS = {"fid": "fid", "accuracy": "class_accuracy"}
"""Names of the results in the metrics file, and in the first row: the samples against the held-out images."""
SHOWN_SAMPLES, SHOWN_NEIGHBORS = 8, 3
"""Rows of the sheet, and neighbors in each, by features and by pixels."""
Nearest = dict[str, tuple[Tensor, Tensor]]
"""Distances to the nearest images by features and by pixels, the nearest first, and their indices, (N, k) each."""


@dataclass(frozen=True)
class ImageSet:
    """Images, their features, and their classes if the feature network is a classifier of them.

    Shapes: pixels (N, H, W, C), features (N, D), logits (N, classes of the feature network), labels (N,).
    """

    name: str
    pixels: Pixels
    features: Tensor
    logits: Tensor
    labels: Tensor | None = None

    def subset(self, most: int) -> "ImageSet":
        """Return at most `most` of the images, evenly spaced."""
        at = evenly_spaced(len(self.pixels), most)
        labels = None if self.labels is None else self.labels[at]
        return ImageSet(self.name, self.pixels[at], self.features[at], self.logits[at], labels)

    @cached_property
    def gaussian(self) -> image_quality.Gaussian:
        """Return the normal distribution of the features, which is costly with many images."""
        return image_quality.fit_gaussian(self.features)

    @property
    def points(self) -> Tensor:
        """Return the images as vectors whose distance is the root mean square difference of pixels in [0, 1]."""
        vectors = torch.from_numpy(self.pixels.reshape(len(self.pixels), -1))
        return vectors / (255 * math.sqrt(vectors.shape[1]))


def measure_images(params: Params, run: str) -> None:
    """Write metrics and record image_quality/RUN, and a sheet of samples and their nearest training images.

    Raises:
        ValueError: The model, the dataset or the feature network is missing or broken.
    """
    measured, settings = params.image_quality.runs[run], params.runs[run]
    configure_runtime(threads=1)
    device, encoded, folder = compute_device(), paths.encoded(measured.dataset), paths.features(measured.features)
    hint = f"run `dvc repro fit_features@{measured.features}` again"
    network, header = image_features.load_features(folder, hint, device)
    train, held_out = (
        _load_real(name, EncodedDataset.open(encoded, split), header, folder, hint)
        for name, split in (("training", "train"), ("held_out", settings.evaluate.split))
    )
    model = load_model(run)
    classes = classes_in_turn(model, measured.count)
    tokens, nfe = _sample(params, model, settings.sample.sampler, classes)
    unigram = open_array(encoded / "unigram.npy", f"run `dvc repro encode@{measured.dataset}` again")

    def image_set(name: str, ids: NDArray[np.int64], labels: Tensor | None) -> ImageSet:
        pixels = to_images(ids, model.objective.vocab_size, model.shape)
        found = image_features.extract(network, pixels, device)
        return ImageSet(name, pixels, found.features, found.logits, labels)

    samples = image_set("samples", tokens, classes if header.task == "classes" else None)
    noise = image_set("noise", image_quality.pixel_noise(unigram, tokens.shape, params.seed), None)
    pairs = [
        *((images, reference) for images in (samples, noise) for reference in (held_out, train)),
        (train.subset(measured.count), held_out),
        (held_out, train),
    ]
    found = {images.name: _nearest(images, train) for images in (samples, noise, held_out)}
    rows = [_row(images, reference, found, header.task) for images, reference in pairs]
    for name, sampler in measured.samplers.items():
        tokens, its_nfe = _sample(params, model, sampler, classes)
        further = image_set(name, tokens, samples.labels)
        found[name] = _nearest(further, train)
        described = {"sampler": sampler.kind, "nfe": its_nfe}
        rows += [_row(further, reference, found, header.task) | described for reference in (held_out, train)]
    record = {
        "run": run,
        "dataset": measured.dataset,
        "split": settings.evaluate.split,
        "features": measured.features,
        "feature_network": f"{header.kind} of {header.task}, {header.num_features} features",
        "feature_network_sha256": header.sha256,
        "k": image_quality.NEIGHBORS,
        "sampler": settings.sample.sampler.kind,
        "nfe": nfe,
        "class_cond": model.class_cond,
        "seed": params.seed_of(run),
        "rows": rows,
    }
    write_record(record, paths.record("image_quality", run))
    metrics = {name: rows[0][key] for name, key in METRICS.items() if rows[0][key] is not None}
    write_record(metrics, paths.metrics("image_quality", run))
    save_png(_neighbor_sheet(samples, train, found[samples.name]), paths.neighbors(run))


def _load_real(
    name: str, dataset: EncodedDataset, header: image_features.FeaturesHeader, folder: Path, hint: str
) -> ImageSet:
    """Return the images of a split whose features `fit_features` computed."""
    found = image_features.load_split(folder / f"{dataset.split}.safetensors", header, hint)
    chosen = evenly_spaced(len(dataset.tokens), len(found.features))
    labels = None
    if dataset.labels is not None and header.task == "classes":
        labels = torch.from_numpy(np.array(dataset.labels[chosen]))
    return ImageSet(name, image_features.pixels_of(dataset, chosen), found.features, found.logits, labels)


def _sample(
    params: Params, model: TrainedModel, sampler: SamplerConfig, classes: Tensor | None
) -> tuple[NDArray[np.int64], int]:
    """Return tokens (N, L), sampled as the stage `sample` does with other random numbers, and NFE of a batch.

    All samplers of a run have the same random numbers.
    """
    measured, settings = params.image_quality.runs[model.name], params.runs[model.name].sample
    parts, nfe = [], 0
    for first in range(0, measured.count, measured.batch_size):
        count = min(measured.batch_size, measured.count - first)
        samples = sample(
            model,
            settings.model_copy(update={"sampler": sampler}),
            all_masked(model, count),
            CounterRNG(params.seed_of(model.name), STREAM),
            class_labels=None if classes is None else classes[first : first + count],
            first=first,
        )
        parts.append(samples.tokens.numpy())
        nfe = max(nfe, samples.nfe)
    return np.concatenate(parts), nfe


def _nearest(images: ImageSet, train: ImageSet) -> Nearest:
    """Return distances to the training images nearest to each image, and which these are, by features and by pixels."""
    return {
        "features": image_quality.nearest(images.features, train.features, SHOWN_NEIGHBORS),
        "pixels": image_quality.nearest(images.points, train.points, SHOWN_NEIGHBORS),
    }


def _row(images: ImageSet, reference: ImageSet, found: dict[str, Nearest], task: str) -> dict[str, Any]:
    """Return the measures of a set of images against reference images; None where one does not apply.

    Args:
        found: The training images nearest to sets of images, by the name of the set.
        task: Task that the feature network was trained for.
    """
    precision, recall = image_quality.precision_recall(images.features, reference.features)
    estimates = {
        "fid": image_quality.frechet_distance(images.features, reference.gaussian),
        "precision": precision,
        "recall": recall,
        "inception_score": None if task == "rotations" else image_quality.inception_score(images.logits),
        "class_accuracy": None if images.labels is None else image_quality.class_accuracy(images.logits, images.labels),
    }
    of_images = found.get(images.name) if images.name != "held_out" else None
    for kind, (of_held_out, _) in found["held_out"].items():
        estimates[f"nearer_{kind}"] = (
            image_quality.nearer_than_held_out(of_images[kind][0].amin(1), of_held_out.amin(1)) if of_images else None
        )
    row: dict[str, Any] = {"images": images.name, "num_images": len(images.pixels)}
    row |= {"reference": reference.name, "num_reference": len(reference.pixels)}
    for name, estimate in estimates.items():
        row |= {name: estimate and estimate.value, f"{name}_stderr": estimate and estimate.stderr}
    return row


def _neighbor_sheet(samples: ImageSet, train: ImageSet, found: Nearest) -> Image.Image:
    """Return samples, from the nearest to a training image to the farthest, and their nearest training images."""
    order = found["pixels"][0][:, 0].argsort().numpy()
    shown = order[evenly_spaced(len(order), SHOWN_SAMPLES)]
    neighbors = [
        Neighbors(f"by {kind}", train.pixels[indices[shown].numpy()], distances[shown].tolist())
        for kind, (distances, indices) in found.items()
    ]
    return neighbor_sheet(samples.pixels[shown], neighbors)
