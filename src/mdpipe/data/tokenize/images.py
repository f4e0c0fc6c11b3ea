"""Quantization of images: from the shards of a raw folder to an encoded dataset, shard by shard."""

import math
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.files import atomic_dir, check_disk_space, link_or_copy
from mdpipe.data.dataset import DatasetHeader, token_dtype, write_header
from mdpipe.data.parallel import map_shards
from mdpipe.data.pixels import quantize, tile
from mdpipe.data.raw import RawImages, read_images
from mdpipe.data.splits import SPLITS, SplitPlan, plan_splits
from mdpipe.data.tokenize.manifest import duplicate_counts, save_digests, write_manifest
from mdpipe.params.data import ImageDataset
from mdpipe.progress import Progress

BATCH_IMAGES = 1024
"""Images that are cut and quantized together: enough to be fast, few enough for any memory."""


def encode_images(
    raw: Path, settings: ImageDataset, seed: int, directory: Path, work_dir: Path, provenance: Mapping[str, Any]
) -> None:
    """Split images, keeping groups of them together, cut them into tiles and quantize these.

    Training tiles are `stride` pixels apart and may overlap; the others never do. A tile has its image's label.

    Args:
        raw: Folder of the source.
        settings: Splits, pixel levels, and the edge of a tile and the distance between training tiles in pixels.
        seed: Seed of the splits.
        directory: The folder to write.
        work_dir: Folder of finished shards, in case this process is killed.
        provenance: Origin of the source, for the manifest.

    Raises:
        ValueError: A split would be empty, tiles do not fit the images, or there are more levels than pixel values.
    """
    levels, size, images = settings.tokenizer.levels, settings.image_size, read_images(raw)
    strides = dict.fromkeys(SPLITS, size) | {"train": settings.stride or size}
    plan = plan_splits(raw, "image", seed, settings.splits)
    shape = (size, size, images.shape[2])
    seq_len = math.prod(shape)
    encode_shard = partial(_encode_shard, plan, images, levels, shape, strides)
    count = sum(shard.count for shard in plan.shards)
    check_disk_space(
        work_dir, count * _tiles_per_image(images, size, strides["train"]) * seq_len, "cutting and quantizing images"
    )
    with Progress("quantizing", None) as progress:
        results = map_shards(encode_shard, range(len(plan.shards)), work_dir / "tokens", progress)
    with atomic_dir(directory) as folder:
        counts: dict[str, dict[str, int]] = {}
        described: dict[str, dict[str, Any]] = {}
        duplicates = duplicate_counts(dict.fromkeys(SPLITS, results))
        for split in SPLITS:
            kept = [result for result in results if result.summary["images"][split]]
            if not kept:
                raise ValueError(f"the {split} split of {raw} has no images; correct the dataset's `splits`")
            names = (split, f"{split}_labels") if images.classes else (split,)
            for number, result in enumerate(kept):
                for name in names:
                    link_or_copy(result.folder / f"{name}.npy", folder / f"{name}-{number:05d}.npy")
            examples = sum(result.summary["images"][split] for result in kept)
            counts[split] = {"images": examples, "tokens": examples * seq_len}
            # Neighboring tiles, which may overlap, are from one image and not independent.
            if (several := _tiles_per_image(images, size, strides[split])) > 1:
                counts[split]["tiles_per_image"] = several
            described[split] = {**counts[split], "examples": examples, **duplicates[split]}
            if images.classes:
                labels = [np.unique(result.load(f"{split}_labels")) for result in kept]
                described[split]["classes"] = len(np.unique(np.concatenate(labels)))
        unigram = sum(result.load("unigram") for result in results)
        np.save(folder / "unigram.npy", unigram, allow_pickle=False)
        header = DatasetHeader(
            modality="image",
            tokenizer="pixels",
            vocab_size=levels,
            shape=shape,
            seq_len=seq_len,
            classes=images.classes,
            splits=counts,
            class_names=images.class_names,
        )
        write_header(folder, header)
        write_manifest(folder, header, provenance, described)


def _tiles_per_image(images: RawImages, size: int, stride: int) -> int:
    height, width, _ = images.shape
    return (max(height - size, 0) // stride + 1) * (max(width - size, 0) // stride + 1)


def _encode_shard(
    plan: SplitPlan,
    raw: RawImages,
    levels: int,
    shape: tuple[int, int, int],
    strides: Mapping[str, int],
    index: int,
    folder: Path,
) -> dict[str, Any]:
    source = plan.shards[index]
    images, labels = source.images(), raw.labels_of(source)
    splits = np.array(plan.of_shard(index), dtype=object)
    size, seq_len = shape[0], math.prod(shape)
    unigram = np.zeros(levels, dtype=np.int64)
    rows = {}
    for split in SPLITS:
        members = np.flatnonzero(splits == split)
        digests = bytearray()
        with ArrayFile(folder / f"{split}.npy", token_dtype(levels), (seq_len,)) as file:
            for first in range(0, len(members), BATCH_IMAGES):
                batch = images[members[first : first + BATCH_IMAGES]]
                digests += b"".join(sha256(image.tobytes()).digest() for image in batch)
                quantized = quantize(batch, raw.maximum, levels)
                tokens = tile(quantized, size, strides[split]).reshape(-1, seq_len)
                file.append(tokens)
                if split == "train":
                    unigram += np.bincount(tokens.ravel(), minlength=levels)
            rows[split] = file.rows
        save_digests(folder, split, digests)
        if labels is not None and len(members):
            repeated = np.repeat(labels[members], file.rows // len(members))
            np.save(folder / f"{split}_labels.npy", repeated, allow_pickle=False)
    np.save(folder / "unigram.npy", unigram, allow_pickle=False)
    return {"images": rows, "bytes": int(images.nbytes)}
