"""Encoding text: from the shards of a raw folder to the folder that `EncodedDataset` opens, shard by shard."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.joined import joined
from mdpipe.data.artifacts.linked import place
from mdpipe.data.artifacts.room import require_room
from mdpipe.data.encoded.dataset import token_dtype, write_header
from mdpipe.data.encoding.chunks import deal_blocks
from mdpipe.data.encoding.leakage import Windows
from mdpipe.data.encoding.leaks import HELD_OUT, leaks_into, windows_of
from mdpipe.data.encoding.manifest import digests_of, duplicates, write_manifest
from mdpipe.data.encoding.packing import CONVENTIONS, Packing
from mdpipe.data.encoding.token_stream import TokenStream, text_between
from mdpipe.data.splits.held import SPLITS, Held
from mdpipe.data.splits.plan import SplitPlan, plan_splits, whole
from mdpipe.data.tokenizers import Tokenizer, load_tokenizer
from mdpipe.data.work.piecewise import Piece, piecewise, scratch_beside
from mdpipe.data.work.progress import Progress

JOINT = "joint.npy"
TOKENIZER = "tokenizer"


def encode_text(
    raw: Path,
    tokenizer: Tokenizer,
    directory: Path,
    length: int,
    seed: int,
    validation: Held,
    test: Held,
    packing: Packing = CONVENTIONS["stream"],
    scratch: Path | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Tokenize every document into the stream of its split, cut as `packing` says; measure what held-out text leaked.

    Args:
        raw: folder of the source.
        tokenizer: to encode with.
        directory: what is written.
        length: tokens of an example.
        seed: of the splits.
        validation: what is held out for validation,
        test: and for testing.
        packing: the convention.
        scratch: where finished shards are kept, in case this process is killed; by default nowhere for long.
        provenance: what the manifest says of the source.

    Raises:
        ValueError: a split would be empty, or the training split is shorter than one example.
    """
    plan = plan_splits(raw, "text", seed, validation, test)
    with ExitStack() as stack:
        pieces_in = scratch or stack.enter_context(scratch_beside(directory))
        shards = _encode_shards(plan, tokenizer, packing, pieces_in)
        pieces = dict.fromkeys(SPLITS, shards)
        leaks: dict[str, dict[str, Any]] = {}
        if not any(plan.chunks):
            leaks = leaks_into(plan, shards, pieces_in)
        elif stream := _files(shards, "train"):
            content = packing.content(length)
            pieces |= deal_blocks(plan, stream, pieces_in / TOKENIZER, packing, content, pieces_in)
        folder = stack.enter_context(folder_aside(directory))
        counts = _finish(folder, tokenizer, length, packing, pieces, plan)
        repeated, left_out = duplicates(pieces), _left_out(shards)
        splits = {
            split: {
                **counts[split],
                "examples": -(-counts[split]["tokens"] // length),
                **_described(pieces[split], split),
                **repeated[split],
                **leaks.get(split, {}),
                **({"documents_left_out": left_out[split]} if split in left_out else {}),
            }
            for split in SPLITS
        }
        about = {"tokenizer": tokenizer.kind, "vocabulary": tokenizer.vocabulary, "length": length}
        about |= provenance or {}
        write_manifest(folder, about, splits)


def encode_corpus(
    raw: Path, tokenizer: Tokenizer, directory: Path, length: int, packing: Packing = CONVENTIONS["stream"]
) -> None:
    """Tokenize a whole source as one split, "test": a corpus that a model of other text is measured on.

    Raises:
        ValueError: no token is left of the corpus.
    """
    with scratch_beside(directory) as scratch, folder_aside(directory) as folder:
        plan = whole(raw, "text", "test")
        pieces = _encode_shards(plan, tokenizer, packing, scratch)
        _finish(folder, tokenizer, length, packing, {"test": pieces}, plan)


@dataclass(frozen=True)
class _Shard:
    """What a process is told of a shard that it is to encode."""

    plan: SplitPlan
    index: int
    tokenizer: Path
    packing: Packing


def _encode_shards(plan: SplitPlan, tokenizer: Tokenizer, packing: Packing, scratch: Path) -> list[Piece]:
    saved = scratch / TOKENIZER
    if not saved.exists():
        with folder_aside(saved) as folder:
            tokenizer.save(folder)
    shards = [_Shard(plan, index, saved, packing) for index in range(len(plan.shards))]
    characters = sum(shard.characters for shard in plan.shards)
    # A token a character is the most that any tokenizer but bytes makes of a text; one of bytes takes a byte each.
    require_room(scratch, characters * np.dtype(token_dtype(tokenizer.vocabulary)).itemsize, "tokenizing")
    with Progress("tokenizing", characters) as progress:
        pieces = piecewise(_encode_shard, shards, scratch / "tokens", progress)
    for split, count in _left_out(pieces).items():
        sys.stderr.write(
            f"{split}: the tokenizer {tokenizer.kind!r} leaves nothing of {count:,} documents, which are left out\n"
        )
    return pieces


def _left_out(shards: Sequence[Piece]) -> Counter[str]:
    """Return how many documents of each split have no token; only of the splits where there are any.

    A document in parts may begin in one shard and end in another. It counts in the split that it begins in.
    """
    counts = Counter[str]()
    for split in SPLITS:
        pending = False
        for told in (piece.summary["splits"][split] for piece in shards):
            if pending and (told["head_ends"] or not told["head_is_empty"]):
                counts[split] += told["head_is_empty"]
                pending = False
            counts[split] += told["left_out"]
            pending = told["open_and_empty"] if told["begun"] else pending
        counts[split] += pending
    return +counts


def _encode_shard(shard: _Shard, folder: Path) -> dict[str, Any]:
    tokenizer = load_tokenizer(shard.tokenizer)
    windows = {split: Windows() for split in HELD_OUT}
    with ExitStack() as files:
        streams = {split: TokenStream(folder / f"{split}.npy", tokenizer, shard.packing, files) for split in SPLITS}
        for split, document in shard.plan.documents(shard.index):
            streams[split].append(document)
            if split in HELD_OUT:
                windows[split].add(document.text)
    np.save(folder / "unigram.npy", streams["train"].unigram, allow_pickle=False)
    np.save(folder / JOINT, np.array(tokenizer.joint, dtype=token_dtype(tokenizer.vocabulary)), allow_pickle=False)
    for split, stream in streams.items():
        digests_of(folder, split).write_bytes(stream.digests)
    for split in HELD_OUT:
        np.save(windows_of(folder, split), windows[split].hashes, allow_pickle=False)
    return {
        "splits": {split: stream.summary for split, stream in streams.items()},
        "bytes": shard.plan.shards[shard.index].characters,
    }


def _finish(
    folder: Path,
    tokenizer: Tokenizer,
    length: int,
    packing: Packing,
    pieces: Mapping[str, list[Piece]],
    plan: SplitPlan,
) -> dict[str, dict[str, int]]:
    """Put the pieces of each split in place and say what they are; give the counts of each split."""
    counts: dict[str, dict[str, int]] = {}
    unigram = sum(np.load(piece.folder / "unigram.npy", allow_pickle=False) for piece in pieces.get("train", []))
    for split, made in pieces.items():
        files = _files(made, split)
        joints = np.tile(np.array(tokenizer.joint, dtype=np.int64), sum(file.name == JOINT for file in files))
        counts[split] = _counted(made, split, joints, tokenizer.decode(joints))
        if split == "train":
            unigram = unigram + np.bincount(joints, minlength=tokenizer.vocabulary)
        if packing.remainder == "drop" and files:
            gone = _place_blocks(folder, split, files, length, packing, tokenizer, counts[split])
            if split == "train":
                unigram = unigram - np.bincount(gone, minlength=tokenizer.vocabulary)
        else:
            for number, file in enumerate(files):
                place(file, folder / f"{split}-{number:05d}.npy")
        if not counts[split]["characters"]:
            raise ValueError(_why_empty(plan, split, tokenizer, length, counts[split]["tokens"]))
    if "train" in pieces:
        if counts["train"]["tokens"] < length:
            raise ValueError(
                f"the training split of {plan.shards[0].directory} has {counts['train']['tokens']} tokens, fewer than"
                f" one window of length = {length}; lower the dataset's `length` in params.yaml, or give more text"
            )
        if packing.block_ends:
            unigram[list(tokenizer.separator)] += 2 * counts["train"]["tokens"] // length
        np.save(folder / "unigram.npy", unigram, allow_pickle=False)
    tokenizer.save(folder)
    write_header(
        folder,
        modality="text",
        tokenizer=tokenizer.kind,
        vocabulary=tokenizer.vocabulary,
        shape=(length,),
        counts=counts,
        blocks=packing.remainder == "drop",
        block_ends=list(tokenizer.separator) if packing.block_ends else [],
    )
    return counts


def _why_empty(plan: SplitPlan, split: str, tokenizer: Tokenizer, length: int, tokens: int) -> str:
    """Explain why a split has no text, and so no bits per character."""
    if tokens:
        return (
            f"the {split} split has {tokens} tokens and no character: its documents are empty or unknown to the"
            f" tokenizer {tokenizer.kind!r}; set the source's `empty_rows` to drop, or choose another tokenizer in"
            " params.yaml"
        )
    if dict(zip(HELD_OUT, plan.chunks, strict=True)).get(split):
        return (
            f"no block of length = {length} is in the {split} split: the text has too few of them for the split's"
            " `chunks`; lower the dataset's `length` or raise `chunks` in params.yaml, or give more text"
        )
    if not any(split == found for index in range(len(plan.shards)) for found, _ in plan.documents(index)):
        return (
            f"no document of the source is in the {split} split; correct the dataset's `validation` and `test` in"
            " params.yaml, or give more documents"
        )
    return (
        f"no token is left of the {split} split: the tokenizer {tokenizer.kind!r} drops all of its text, or it is"
        f" shorter than one block of length = {length}; choose another tokenizer or length in params.yaml"
    )


def _files(pieces: list[Piece], split: str) -> list[Path]:
    """The shards of a split, and between them the tokenizer's joint where it is needed."""
    files: list[Path] = []
    pending = False
    for piece in pieces:
        told = piece.summary["splits"][split]
        pending = pending and not told["closes"]
        if told["tokens"]:
            begins = not files and not told["continues"]
            if told["joint_leading"] if begins else pending or told["joint_before"]:
                files.append(piece.folder / JOINT)
            files.append(piece.folder / f"{split}.npy")
            pending = False
        pending = pending or told["joint_after"]
    return [*files, pieces[-1].folder / JOINT] if pending else files


def _place_blocks(
    folder: Path,
    split: str,
    files: Sequence[Path],
    length: int,
    packing: Packing,
    tokenizer: Tokenizer,
    counts: dict[str, int],
) -> NDArray[np.int64]:
    """Put whole blocks in place and correct the counts; give the tokens that are left out."""
    content, separator = packing.content(length), np.array(tokenizer.separator)
    arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
    blocks = counts["tokens"] // content
    room = blocks * content
    for number, (file, tokens) in enumerate(zip(files, arrays, strict=True)):
        target = folder / f"{split}-{number:05d}.npy"
        if len(tokens) <= room:
            place(file, target)
        elif room:
            np.save(target, tokens[:room], allow_pickle=False)
        room -= min(room, len(tokens))
    stream = joined(arrays)
    text = text_between(tokenizer, stream, blocks * content, len(stream))
    # The text of a lossy tokenizer is what its tokens decode to: the ends of blocks are spaces of letters.
    ends = "" if tokenizer.lossless or not packing.block_ends else 2 * blocks * tokenizer.decode(separator)
    counts["characters"] += len(ends) - len(text)
    counts["bytes"] += len(ends.encode()) - len(text.encode())
    counts["tokens"] = blocks * length
    return stream[blocks * content :].astype(np.int64)


def _counted(pieces: list[Piece], split: str, joints: NDArray[np.int64], text: str) -> dict[str, int]:
    """Counts of the shards of a split and of the joints between them, which stand for this text.

    A document that the split begins within was counted in the split before, and counts here as well.
    """
    found = [piece.summary["splits"][split] for piece in pieces]
    counts = {what: sum(counts[what] for counts in found) for what in ("documents", "tokens", "bytes", "characters")}
    counts["documents"] += next((told["continues"] for told in found if told["tokens"]), False)
    counts["tokens"] += len(joints)
    counts["bytes"] += len(text.encode())
    counts["characters"] += len(text)
    return counts


def _described(pieces: list[Piece], split: str) -> dict[str, Any]:
    """What the manifest says besides the counts of a split; it speaks of documents, before blocks are cut."""
    found = [piece.summary["splits"][split] for piece in pieces]
    lengths = np.sum([counts["lengths"] for counts in found], axis=0)
    return {
        "unknown": sum(counts["unknown"] for counts in found),
        "longest": max(counts["longest"] for counts in found),
        "lengths": np.trim_zeros(lengths, "b").tolist(),
    }
