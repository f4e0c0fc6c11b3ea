"""Encoding pictures: from the shards of a raw folder to the folder that `EncodedDataset` opens, shard by shard."""

from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.linked import place
from mdpipe.data.artifacts.room import require_room
from mdpipe.data.encoded.dataset import token_dtype, write_header
from mdpipe.data.encoding.manifest import digests_of, duplicates, write_manifest
from mdpipe.data.pixels import quantize, tile
from mdpipe.data.raw.material import RawImages, read_images
from mdpipe.data.splits.held import SPLITS, Held
from mdpipe.data.splits.plan import SplitPlan, plan_splits
from mdpipe.data.work.piecewise import piecewise, scratch_beside
from mdpipe.data.work.progress import Progress

IMAGES_AT_ONCE = 1024
"""Pictures that are cut and quantized together: enough to be fast, few enough for any memory."""


def encode_images(
    raw: Path,
    levels: int,
    size: int,
    stride: int,
    directory: Path,
    seed: int,
    validation: Held,
    test: Held,
    scratch: Path | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Cut the pictures into tiles and quantize them; groups of pictures stay together.

    Training tiles lie `stride` apart and may overlap; held-out tiles lie side by side. A tile has its picture's label.

    Args:
        raw: folder of the source.
        levels: of a pixel.
        size: edge of a tile.
        stride: between training tiles.
        directory: what is written.
        seed: of the splits.
        validation: what is held out for validation,
        test: and for testing.
        scratch: where finished shards are kept, in case this process is killed; by default nowhere for long.
        provenance: what the manifest says of the source.

    Raises:
        ValueError: a split would be empty, tiles do not fit the pictures, or there are more levels than pixel values.
    """
    pictures = read_images(raw)
    plan = plan_splits(raw, "image", seed, validation, test)
    shape = (size, size, pictures.shape[2])
    shards = [_Shard(plan, index, pictures, levels, shape, stride) for index in range(len(plan.shards))]
    with ExitStack() as stack:
        pieces_in = scratch or stack.enter_context(scratch_beside(directory))
        tiles = (max(pictures.shape[0] - size, 0) // stride + 1) * (max(pictures.shape[1] - size, 0) // stride + 1)
        images = sum(shard.count for shard in plan.shards)
        require_room(pieces_in, images * tiles * int(np.prod(shape)), "cutting and quantizing pictures")
        with Progress("quantizing", None) as progress:
            pieces = piecewise(_encode_shard, shards, pieces_in / "tokens", progress)
        folder = stack.enter_context(folder_aside(directory))
        counts: dict[str, dict[str, int]] = {}
        present: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
        for split in SPLITS:
            kept = [piece for piece in pieces if piece.summary["images"][split]]
            for number, piece in enumerate(kept):
                for kind in (split, f"{split}_labels") if pictures.classes else (split,):
                    place(piece.folder / f"{kind}.npy", folder / f"{kind}-{number:05d}.npy")
            images = sum(piece.summary["images"][split] for piece in pieces)
            if not images:
                raise ValueError(
                    f"the {split} split of {raw} has no pictures; correct the dataset's shares in params.yaml"
                )
            counts[split] = {"images": images, "tokens": images * int(np.prod(shape))}
            if pictures.classes:
                labels = [
                    np.unique(np.load(piece.folder / f"{split}_labels.npy", allow_pickle=False)) for piece in kept
                ]
                present[split] = {"classes": len(np.unique(np.concatenate(labels)))}
        unigram = sum(np.load(piece.folder / "unigram.npy", allow_pickle=False) for piece in pieces)
        np.save(folder / "unigram.npy", unigram, allow_pickle=False)
        write_header(
            folder,
            modality="image",
            tokenizer="pixels",
            vocabulary=levels,
            shape=shape,
            counts=counts,
            classes=pictures.classes,
            class_names=pictures.class_names,
        )
        repeated = duplicates(dict.fromkeys(SPLITS, pieces))
        about = {"tokenizer": "pixels", "vocabulary": levels, "length": int(np.prod(shape))}
        about |= {"classes": pictures.classes, **(provenance or {})}
        examples = {split: {"examples": counts[split]["images"]} for split in SPLITS}
        splits = {split: {**counts[split], **examples[split], **present[split], **repeated[split]} for split in SPLITS}
        write_manifest(folder, about, splits)


@dataclass(frozen=True)
class _Shard:
    """What a process is told of a shard that it is to encode."""

    plan: SplitPlan
    index: int
    pictures: RawImages
    levels: int
    shape: tuple[int, int, int]
    stride: int


def _encode_shard(shard: _Shard, folder: Path) -> dict[str, Any]:
    source = shard.plan.shards[shard.index]
    images = source.images()
    labels = shard.pictures.labels_of(source)
    splits = np.array(shard.plan.of_shard(shard.index), dtype=object)
    size, _, channels = shard.shape
    length = size * size * channels
    unigram = np.zeros(shard.levels, dtype=np.int64)
    rows = {}
    for split in SPLITS:
        members = np.flatnonzero(splits == split)
        with (
            ArrayFile(folder / f"{split}.npy", token_dtype(shard.levels), (length,)) as file,
            digests_of(folder, split).open("wb") as digests,
        ):
            for first in range(0, len(members), IMAGES_AT_ONCE):
                chosen = images[members[first : first + IMAGES_AT_ONCE]]
                digests.writelines(sha256(image.tobytes()).digest() for image in chosen)
                quantized = quantize(chosen, shard.pictures.maximum, shard.levels)
                tiles = tile(quantized, size, shard.stride if split == "train" else size)
                tokens = tiles.reshape(-1, length)
                file.append(tokens)
                if split == "train":
                    unigram += np.bincount(tokens.ravel(), minlength=shard.levels)
            rows[split] = file.rows
        if labels is not None and len(members):
            repeated = np.repeat(labels[members], file.rows // len(members))
            np.save(folder / f"{split}_labels.npy", repeated, allow_pickle=False)
    np.save(folder / "unigram.npy", unigram, allow_pickle=False)
    return {"images": rows, "bytes": int(images.nbytes)}
