"""Tokenization of text: from the shards of a raw folder to an encoded dataset, shard by shard."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from itertools import pairwise, takewhile
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import ConcatArray, concat_arrays
from mdpipe.data.artifacts.files import atomic_dir, check_disk_space, link_or_copy
from mdpipe.data.dataset import DatasetHeader, token_dtype, write_header
from mdpipe.data.parallel import ShardResult, map_shards
from mdpipe.data.splits import SPLITS, SplitPlan, plan_splits, single_split
from mdpipe.data.tokenize.manifest import (
    EVALUATION_SPLITS,
    duplicate_counts,
    find_contamination,
    save_digests,
    window_hashes,
    write_manifest,
)
from mdpipe.data.tokenize.token_stream import TokenStream, count_words, decode_between
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.data.tokenizers.base import Tokenizer
from mdpipe.messages import counted
from mdpipe.params.data import PACKINGS, Packing, TextDataset
from mdpipe.progress import Progress

TOKENIZER = "tokenizer"
"""Folder of the tokenizer among the shards."""


def encode_text(
    raw: Path,
    tokenizer: Tokenizer,
    settings: TextDataset,
    seed: int,
    directory: Path,
    work_dir: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Split a source, tokenize it into one stream per split, and measure contamination.

    Args:
        raw: Folder of the source.
        tokenizer: Fitted to the training split.
        settings: Splits, packing and tokens per example.
        seed: Seed of the splits.
        directory: The folder to write.
        work_dir: Folder of finished shards, in case this process is killed.
        provenance: Origin of the source, for the manifest.

    Raises:
        ValueError: A split would be empty, or the training split is shorter than one example.
    """
    packing, seq_len = settings.packing, settings.seq_len
    plan = plan_splits(raw, "text", seed, settings.splits)
    shards = _encode_shards(plan, tokenizer, packing, work_dir)
    results = dict.fromkeys(SPLITS, shards)
    contamination: dict[str, dict[str, Any]] = {}
    if not plan.window_fractions:
        contamination = find_contamination(plan, shards, work_dir)
    elif stream := _files(shards, "train"):
        results |= _assign_windows(plan, stream, packing, packing.stream_tokens(seq_len), work_dir)
    with atomic_dir(directory) as folder:
        header = _write_dataset(folder, tokenizer, seq_len, packing, results, plan)
        duplicates, left_out = duplicate_counts(results), _left_out(shards)
        described = {
            split: {
                **header.splits[split],
                "examples": -(-header.splits[split]["tokens"] // seq_len),
                # Of documents, before windows are cut.
                "unk_tokens": sum(_each(results[split], split, "unk_tokens")),
                "longest_document": max(_each(results[split], split, "longest_document")),
                "lengths": np.trim_zeros(np.sum(_each(results[split], split, "lengths"), axis=0), "b").tolist(),
                **duplicates[split],
                **contamination.get(split, {}),
                **({"documents_left_out": left_out[split]} if split in left_out else {}),
            }
            for split in SPLITS
        }
        write_manifest(folder, header, provenance, described)


def encode_corpus(
    raw: Path, tokenizer: Tokenizer, directory: Path, seq_len: int, packing: Packing = PACKINGS["stream"]
) -> None:
    """Tokenize a whole source as the split "test": a corpus to evaluate a model of other text on.

    Raises:
        ValueError: No token is left of the corpus.
    """
    with atomic_dir(directory) as folder:
        plan, work_dir = single_split(raw, "text", "test"), folder / "work_dir"
        shards = _encode_shards(plan, tokenizer, packing, work_dir)
        _write_dataset(folder, tokenizer, seq_len, packing, {"test": shards}, plan)
        rmtree(work_dir)


def _encode_shards(plan: SplitPlan, tokenizer: Tokenizer, packing: Packing, work_dir: Path) -> list[ShardResult]:
    saved = work_dir / TOKENIZER
    if not saved.exists():
        with atomic_dir(saved) as folder:
            tokenizer.save(folder)
    characters = sum(shard.characters for shard in plan.shards)
    # Subwords need at most one token per character, and bytes one byte per byte.
    check_disk_space(work_dir, characters * np.dtype(token_dtype(tokenizer.vocab_size)).itemsize, "tokenizing")
    encode_shard = partial(_encode_shard, plan, saved, packing)
    with Progress("tokenizing", characters) as progress:
        results = map_shards(encode_shard, range(len(plan.shards)), work_dir / "tokens", progress)
    for split, count in _left_out(results).items():
        sys.stderr.write(
            f"{split}: the tokenizer {tokenizer.kind!r} leaves nothing of {counted(count, 'documents')}; left out\n"
        )
    return results


def _each(results: Sequence[ShardResult], split: str, name: str) -> list[Any]:
    """Return a count of a split in each shard."""
    return [result.summary["splits"][split][name] for result in results]


def _left_out(results: Sequence[ShardResult]) -> dict[str, int]:
    """Return the number of documents without tokens in each split that has any."""
    counts = {split: sum(_each(results, split, "documents_left_out")) for split in SPLITS}
    return {split: count for split, count in counts.items() if count}


def _encode_shard(plan: SplitPlan, saved: Path, packing: Packing, index: int, folder: Path) -> dict[str, Any]:
    tokenizer = load_tokenizer(saved)
    windows: dict[str, list[NDArray[np.uint64]]] = {split: [np.empty(0, np.uint64)] for split in EVALUATION_SPLITS}
    started: set[str] = set()
    with ExitStack() as files:
        streams = {split: TokenStream(folder / f"{split}.npy", tokenizer, packing, files) for split in SPLITS}
        for split, document, is_cut in plan.documents(index):
            if not started and document.part:
                parts = takewhile(lambda part, split=split: part.split == split, plan.parts_before(index))  # type: ignore[misc]
                streams[split].resume(part.document for part in parts)
            if split not in started and not packing.append_eos and tokenizer.eos_separates_words:
                streams[split].has_words = _has_words_before(plan, index, split, tokenizer)
            started.add(split)
            streams[split].append(document, is_cut=is_cut)
            if split in EVALUATION_SPLITS:
                windows[split].append(window_hashes(document.text))
    for split in EVALUATION_SPLITS:
        np.save(folder / f"{split}_windows.npy", np.concatenate(windows[split]), allow_pickle=False)
    return _save_streams(streams, folder, plan.shards[index].characters)


def _has_words_before(plan: SplitPlan, index: int, split: str, tokenizer: Tokenizer) -> bool:
    """Return True if a document of the split in an earlier shard has a word; the first document usually has one."""
    entries = (entry for earlier in range(index) for entry in plan.documents(earlier) if entry.split == split)
    return any((tokenizer.encode(entry.document.text) != tokenizer.eos_id).any() for entry in entries)


def _save_streams(streams: Mapping[str, TokenStream], folder: Path, size: int) -> dict[str, Any]:
    """Write the files of a shard other than its tokens, and return its summary."""
    for split, stream in streams.items():
        save_digests(folder, split, stream.digests)
        np.save(folder / f"{split}_documents.npy", np.array(stream.starts, dtype=np.int64), allow_pickle=False)
    np.save(folder / "unigram.npy", streams["train"].unigram, allow_pickle=False)
    return {"splits": {split: stream.summary for split, stream in streams.items()}, "bytes": size}


def _assign_windows(
    plan: SplitPlan, stream: Sequence[Path], packing: Packing, stream_tokens: int, work_dir: Path
) -> dict[str, list[ShardResult]]:
    """Assign the windows of the training stream to splits at random, as in the published split of OpenWebText.

    Window k gets the k-th random number, however the source is divided into shards. A rest after them is trained on.
    """
    tokens = _open(stream)
    count, size = len(plan.shards), tokens.size * tokens.dtype.itemsize
    ends = [len(tokens) // stream_tokens * number // count for number in range(count)]
    ranges = [*pairwise([*ends, -(-len(tokens) // stream_tokens)])]
    assign_range = partial(_assign_range, plan, tuple(stream), work_dir / TOKENIZER, packing, stream_tokens)
    check_disk_space(work_dir, size, "assigning windows to splits")
    with Progress("assigning windows", size) as progress:
        results = map_shards(assign_range, ranges, work_dir / "windows", progress)
    return dict.fromkeys([*plan.window_fractions, "train"], results)


def _assign_range(
    plan: SplitPlan,
    stream: Sequence[Path],
    saved: Path,
    packing: Packing,
    stream_tokens: int,
    windows: tuple[int, int],
    folder: Path,
) -> dict[str, Any]:
    """Assign windows from the first to before the end; a rest counts as the last window."""
    first_window, end_window = windows
    tokenizer, tokens, document_starts = load_tokenizer(saved), _open(stream), _document_starts(stream)
    # All numbers from the first window on: eight bytes per window are little, and no generator has to be stored.
    random = np.random.Generator(np.random.Philox(key=[plan.seed, 0])).random(len(tokens) // stream_tokens)
    names = [*plan.window_fractions, "train"]
    ends = np.cumsum([*plan.window_fractions.values()])
    owners = np.searchsorted(ends, random[first_window:end_window], side="right").tolist()
    splits = [*(names[owner] for owner in owners), "train"]  # The last one is for the rest, if there is any.
    cuts = [min(number * stream_tokens, len(tokens)) for number in range(first_window, end_window + 1)]
    with ExitStack() as files:
        streams = {split: TokenStream(folder / f"{split}.npy", tokenizer, packing, files) for split in names}
        for split, (first, end) in zip(splits, pairwise(cuts), strict=False):
            text = decode_between(tokenizer, tokens, first, end)
            streams[split].add(tokens[first:end], text)
            streams[split].digests += sha256(text.encode()).digest()
            if not packing.drop_last or end - first == stream_tokens:  # The rest is dropped later, words and all.
                streams[split].counts["words"] += count_words(tokenizer, tokens, document_starts, first, end)
    return _save_streams(streams, folder, (cuts[-1] - cuts[0]) * tokens.dtype.itemsize)


def _write_dataset(
    folder: Path,
    tokenizer: Tokenizer,
    seq_len: int,
    packing: Packing,
    results: Mapping[str, list[ShardResult]],
    plan: SplitPlan,
) -> DatasetHeader:
    """Write tokens, document starts, unigram counts, tokenizer and dataset.json; return the content of the last."""
    splits: dict[str, dict[str, int]] = {}
    unigram = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for result in results.get("train", []):
        unigram += result.load("unigram")
    for split, shards in results.items():
        files = _files(shards, split)
        names = ("documents", "tokens", "bytes", "characters", "words")
        splits[split] = counts = {name: sum(_each(shards, split, name)) for name in names}
        end = counts["tokens"]
        if packing.drop_last:
            end -= end % packing.stream_tokens(seq_len)
        left = end
        for number, file in enumerate(files):
            target, tokens = folder / f"{split}-{number:05d}.npy", _open([file])
            if len(tokens) <= left:
                link_or_copy(file, target)
            elif left:
                np.save(target, tokens[:left], allow_pickle=False)
            left -= min(left, len(tokens))
        if counts["documents"]:  # Windows that were assigned to a split belong to no document of it.
            starts = _document_starts(files)
            np.save(folder / f"{split}_documents.npy", starts[starts < end], allow_pickle=False)
        if packing.drop_last and files:
            dropped = _drop_rest(counts, tokenizer, files, end, seq_len, packing)
            if split == "train":
                unigram -= np.bincount(dropped, minlength=tokenizer.vocab_size)
        if not counts["characters"]:
            raise ValueError(_why_empty(plan, split, tokenizer, seq_len, counts["tokens"]))
    if "train" in results:
        if splits["train"]["tokens"] < seq_len:
            raise ValueError(
                f"the training split of {plan.shards[0].directory} has {splits['train']['tokens']} tokens, fewer than"
                f" one window of seq_len = {seq_len}; lower the dataset's `seq_len` in params.yaml, or give more text"
            )
        if packing.wrap_with_eos:
            unigram[tokenizer.eos_id] += 2 * splits["train"]["tokens"] // seq_len
        np.save(folder / "unigram.npy", unigram, allow_pickle=False)
    tokenizer.save(folder)
    header = DatasetHeader(
        modality="text",
        tokenizer=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        shape=(seq_len,),
        seq_len=seq_len,
        classes=0,
        splits=splits,
        drop_last=packing.has_fixed_windows,
        wrap_ids=(tokenizer.eos_id,) if packing.wrap_with_eos else (),
        separate_documents=packing.separate_documents,
    )
    write_header(folder, header)
    return header


def _drop_rest(
    counts: dict[str, int], tokenizer: Tokenizer, files: Sequence[Path], end: int, seq_len: int, packing: Packing
) -> NDArray[np.int64]:
    """Correct the counts of a split for the tokens from `end` on, which are dropped, and return these."""
    stream, windows = _open(files), end // packing.stream_tokens(seq_len)
    text = decode_between(tokenizer, stream, end, len(stream))
    # A lossy tokenizer's text is what its tokens decode to: the end-of-text token of text8 is a space.
    eos_text = tokenizer.decode(np.array([tokenizer.eos_id]))
    wrapping = "" if tokenizer.is_lossless or not packing.wrap_with_eos else 2 * windows * eos_text
    counts["characters"] += len(wrapping) - len(text)
    counts["bytes"] += len(wrapping.encode()) - len(text.encode())
    if counts["documents"]:
        counts["words"] -= count_words(tokenizer, stream, _document_starts(files), end, len(stream))
    counts["tokens"] = windows * seq_len
    return stream[end:].astype(np.int64)


def _files(results: Sequence[ShardResult], split: str) -> list[Path]:
    """Return the files with tokens of a split."""
    return [result.folder / f"{split}.npy" for result in results if result.summary["splits"][split]["tokens"]]


def _open(files: Sequence[Path]) -> NDArray[np.unsignedinteger] | ConcatArray[np.unsignedinteger]:
    """Memory-map files with tokens as one stream."""
    return concat_arrays([np.load(file, mmap_mode="r", allow_pickle=False) for file in files])


def _document_starts(files: Sequence[Path]) -> NDArray[np.int64]:
    """Return the position at which each document begins in the stream of these token files."""
    starts = [np.load(file.with_name(f"{file.stem}_documents.npy"), allow_pickle=False) for file in files]
    positions = np.cumsum([0, *(len(_open([file])) for file in files)])
    return np.concatenate([position + of_file for position, of_file in zip(positions, starts, strict=False)])


def _why_empty(plan: SplitPlan, split: str, tokenizer: Tokenizer, seq_len: int, tokens: int) -> str:
    """Explain why a split has no text, and so no bits per character."""
    if tokens:
        return (
            f"the {split} split has {tokens} tokens and no character: its documents are empty or unknown to the"
            f" tokenizer {tokenizer.kind!r}; set the source's `empty_documents` to drop, or choose another tokenizer in"
            " params.yaml"
        )
    if split in plan.window_fractions:
        return (
            f"no window of seq_len = {seq_len} is in the {split} split: the text has too few of them for the split's"
            " `windows`; lower the dataset's `seq_len` or raise `windows` in params.yaml, or give more text"
        )
    if not any(split == entry.split for index in range(len(plan.shards)) for entry in plan.documents(index)):
        return (
            f"no document of the source is in the {split} split; correct the dataset's `splits` in params.yaml, or give"
            " more documents"
        )
    return (
        f"no token is left of the {split} split: the tokenizer {tokenizer.kind!r} drops all of its text, or it is"
        f" shorter than one window of seq_len = {seq_len}; choose another tokenizer or seq_len in params.yaml"
    )
