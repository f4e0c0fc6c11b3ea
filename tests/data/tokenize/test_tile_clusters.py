"""Tiles of one image are one cluster of the standard error."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.dataset import BLOCKS, EncodedDataset
from mdpipe.data.raw import ImageBatch
from mdpipe.evaluation.estimate import ratio_estimate
from tests.data.builders import encode_images, last
from tests.data.shards import write_image_shards


def encoded(folder: Path, images: NDArray[np.uint8], size: int, stride: int, test: int, shards: int = 1) -> Path:
    write_image_shards(folder / "raw", ImageBatch(images, np.arange(len(images), dtype=np.int32), 255), shards)
    encode_images(folder / "raw", 256, size, stride, folder / "e", 0, last(2), last(test))
    return folder / "e"


def test_tiles_of_one_image_are_one_cluster(tmp_path: Path) -> None:
    """In every split and shard; the tiles of the training split overlap."""
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)
    folder = encoded(tmp_path, images, 2, 1, test=5, shards=3)
    for split, tiles in (("train", 15), ("validation", 6), ("test", 6)):
        dataset = EncodedDataset.open(folder, split)
        kind, clusters = dataset.clusters
        assert kind == "image"
        assert clusters.tolist() == np.unique(np.asarray(dataset.tokens)[:, 0], return_inverse=True)[1].tolist()
        assert np.bincount(clusters).tolist() == [tiles] * (dataset.examples // tiles)


def test_whole_images_are_a_cluster_each(image_dataset: Path) -> None:
    dataset = EncodedDataset.open(image_dataset, "train")
    assert dataset.clusters[0] == "image"
    assert dataset.clusters[1].tolist() == list(range(dataset.examples))


def test_tiles_of_a_single_image_are_clustered_in_blocks(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 1), dtype=np.uint8)
    dataset = EncodedDataset.open(encoded(tmp_path, images, 2, 2, test=1), "test")
    kind, clusters = dataset.clusters
    assert (kind, dataset.examples, len(np.unique(clusters))) == ("block", 36, BLOCKS)


def test_the_error_over_tiles_covers_the_truth(tmp_path: Path) -> None:
    """95 % intervals of the mean level from 500 draws of 40 images, whose levels differ more between images.

    With 40 clusters about 94 % cover the truth, and a measured coverage below 90 % or above 98 % happens once in 5,000
    runs. If the 9 tiles of an image were independent examples, half of the intervals would.
    """
    random, number = np.random.default_rng(0), 40
    levels = random.normal(128, 20, (500 * number, 1, 1, 1)) + random.normal(0, 10, (500 * number, 6, 6, 1))
    images = np.concatenate([np.zeros((3, 6, 6, 1)), levels]).round().clip(0, 255).astype(np.uint8)
    dataset = EncodedDataset.open(encoded(tmp_path, images, 2, 2, test=len(levels)), "test")
    totals = np.asarray(dataset.tokens).sum(axis=1, dtype=np.float64).reshape(500, -1)
    clusters = dataset.clusters[1].reshape(500, -1)
    sizes = np.full(totals.shape[1], dataset.seq_len)
    covered = np.zeros(2)
    for total, cluster in zip(totals, clusters, strict=True):
        for index, by in enumerate((cluster, None)):
            estimate = ratio_estimate(total, sizes, by)
            covered[index] += abs(estimate.value - 128) < 1.96 * estimate.stderr
    assert 0.90 < covered[0] / 500 < 0.98
    assert covered[1] / 500 < 0.7
