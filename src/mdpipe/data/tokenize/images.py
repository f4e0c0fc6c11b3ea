"""Quantization of images: from the shards of a raw folder to an encoded dataset, shard by shard."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.files import atomic_dir, check_disk_space, link_or_copy, scratch_dir
from mdpipe.data.dataset import DatasetHeader, token_dtype, write_header
from mdpipe.data.parallel import map_shards
from mdpipe.data.pixels import quantize, tile
from mdpipe.data.raw import RawImages, read_images
from mdpipe.data.splits import SPLITS, SplitPlan, plan_splits
from mdpipe.data.tokenize.manifest import digest_file, duplicate_counts, write_manifest
from mdpipe.params.data import Splits
from mdpipe.progress import Progress

BATCH_IMAGES = 1024
"""Images that are cut and quantized together: enough to be fast, few enough for any memory."""


def encode_images(
    raw: Path,
    levels: int,
    size: int,
    stride: int,
    directory: Path,
    seed: int,
    splits: Splits,
    scratch: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Split images, keeping groups of them together, cut them into tiles and quantize these.

    Training tiles are `stride` pixels apart and may overlap; the others never do. A tile has its image's label.

    Args:
        raw: folder of the source.
        levels: number of pixel levels.
        size: edge of a tile in pixels.
        stride: distance between training tiles in pixels.
        directory: the folder to write.
        seed: of the splits.
        splits: the validation and test splits.
        scratch: where finished shards are kept in case this process is killed; None to keep them only while it runs.
        provenance: origin of the source, for the manifest.

    Raises:
        ValueError: a split would be empty, tiles do not fit the images, or there are more levels than pixel values.
    """
    images = read_images(raw)
    plan = plan_splits(raw, "image", seed, splits)
    shape = (size, size, images.shape[2])
    seq_len = math.prod(shape)
    encode_shard = partial(_encode_shard, plan, images, levels, shape, stride)
    with ExitStack() as stack:
        scratch = scratch or stack.enter_context(scratch_dir(directory))
        tiles = _tiles_per_image(images, size, stride)
        count = sum(shard.count for shard in plan.shards)
        check_disk_space(scratch, count * tiles * seq_len, "cutting and quantizing images")
        with Progress("quantizing", None) as progress:
            results = map_shards(encode_shard, range(len(plan.shards)), scratch / "tokens", progress)
        folder = stack.enter_context(atomic_dir(directory))
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
            if (several := _tiles_per_image(images, size, stride if split == "train" else size)) > 1:
                counts[split]["tiles_per_image"] = several
            described[split] = {**counts[split], "examples": examples, **duplicates[split]}
            if images.classes:
                labels = [np.load(result.folder / f"{split}_labels.npy", allow_pickle=False) for result in kept]
                described[split]["classes"] = len(np.unique(np.concatenate([np.unique(some) for some in labels])))
        unigram = sum(np.load(result.folder / "unigram.npy", allow_pickle=False) for result in results)
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
        metadata = {"tokenizer": "pixels", "vocab_size": levels, "seq_len": seq_len, "classes": images.classes}
        write_manifest(folder, {**metadata, **(provenance or {})}, described)


def _tiles_per_image(images: RawImages, size: int, stride: int) -> int:
    height, width, _ = images.shape
    return (max(height - size, 0) // stride + 1) * (max(width - size, 0) // stride + 1)


def _encode_shard(
    plan: SplitPlan, raw: RawImages, levels: int, shape: tuple[int, int, int], stride: int, index: int, folder: Path
) -> dict[str, Any]:
    source = plan.shards[index]
    images, labels = source.images(), raw.labels_of(source)
    splits = np.array(plan.of_shard(index), dtype=object)
    size, seq_len = shape[0], math.prod(shape)
    unigram = np.zeros(levels, dtype=np.int64)
    rows = {}
    for split in SPLITS:
        members = np.flatnonzero(splits == split)
        with (
            ArrayFile(folder / f"{split}.npy", token_dtype(levels), (seq_len,)) as file,
            digest_file(folder, split).open("wb") as digests,
        ):
            for first in range(0, len(members), BATCH_IMAGES):
                batch = images[members[first : first + BATCH_IMAGES]]
                digests.writelines(sha256(image.tobytes()).digest() for image in batch)
                quantized = quantize(batch, raw.maximum, levels)
                tokens = tile(quantized, size, stride if split == "train" else size).reshape(-1, seq_len)
                file.append(tokens)
                if split == "train":
                    unigram += np.bincount(tokens.ravel(), minlength=levels)
            rows[split] = file.rows
        if labels is not None and len(members):
            repeated = np.repeat(labels[members], file.rows // len(members))
            np.save(folder / f"{split}_labels.npy", repeated, allow_pickle=False)
    np.save(folder / "unigram.npy", unigram, allow_pickle=False)
    return {"images": rows, "bytes": int(images.nbytes)}
