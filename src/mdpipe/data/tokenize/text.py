"""Tokenization of text: from the shards of a raw folder to an encoded dataset, shard by shard."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import ConcatArray, concat_arrays
from mdpipe.data.artifacts.files import atomic_dir, check_disk_space, link_or_copy, scratch_dir
from mdpipe.data.dataset import DatasetHeader, token_dtype, write_header
from mdpipe.data.parallel import ShardResult, map_shards
from mdpipe.data.splits import SPLITS, SplitPlan, plan_splits, single_split
from mdpipe.data.tokenize.manifest import (
    EVALUATION_SPLITS,
    digest_file,
    duplicate_counts,
    find_contamination,
    window_file,
    window_hashes,
    write_manifest,
)
from mdpipe.data.tokenize.token_stream import TokenStream, count_words, decode_between
from mdpipe.data.tokenizers import Tokenizer, load_tokenizer
from mdpipe.params.data import PACKINGS, Packing, Splits
from mdpipe.progress import Progress

TOKENIZER = "tokenizer"
"""Folder of the tokenizer among the shards."""


def encode_text(
    raw: Path,
    tokenizer: Tokenizer,
    directory: Path,
    seq_len: int,
    seed: int,
    splits: Splits,
    packing: Packing,
    scratch: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Split a source, tokenize it into one stream per split, and measure contamination.

    Args:
        raw: folder of the source.
        tokenizer: fitted to the training split.
        directory: the folder to write.
        seq_len: tokens per example.
        seed: of the splits.
        splits: the validation and test splits.
        packing: how documents become examples.
        scratch: where finished shards are kept in case this process is killed; None to keep them only while it runs.
        provenance: origin of the source, for the manifest.

    Raises:
        ValueError: a split would be empty, or the training split is shorter than one example.
    """
    plan = plan_splits(raw, "text", seed, splits)
    with ExitStack() as stack:
        scratch = scratch or stack.enter_context(scratch_dir(directory))
        shards = _encode_shards(plan, tokenizer, packing, scratch)
        results = dict.fromkeys(SPLITS, shards)
        contamination: dict[str, dict[str, Any]] = {}
        if not any(plan.window_fractions):
            contamination = find_contamination(plan, shards, scratch)
        elif stream := _files(shards, "train"):
            results |= _assign_windows(plan, stream, packing, packing.stream_tokens(seq_len), scratch)
        folder = stack.enter_context(atomic_dir(directory))
        counts = _write_dataset(folder, tokenizer, seq_len, packing, results, plan)
        duplicates, left_out = duplicate_counts(results), _left_out(shards)
        described = {
            split: {
                **counts[split],
                "examples": -(-counts[split]["tokens"] // seq_len),
                **_document_stats(results[split], split),
                **duplicates[split],
                **contamination.get(split, {}),
                **({"documents_left_out": left_out[split]} if split in left_out else {}),
            }
            for split in SPLITS
        }
        metadata = {"tokenizer": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "seq_len": seq_len}
        write_manifest(folder, {**metadata, **(provenance or {})}, described)


def encode_corpus(
    raw: Path, tokenizer: Tokenizer, directory: Path, seq_len: int, packing: Packing = PACKINGS["stream"]
) -> None:
    """Tokenize a whole source as the split "test": a corpus to evaluate a model of other text on.

    Raises:
        ValueError: no token is left of the corpus.
    """
    with scratch_dir(directory) as scratch, atomic_dir(directory) as folder:
        plan = single_split(raw, "text", "test")
        shards = _encode_shards(plan, tokenizer, packing, scratch)
        _write_dataset(folder, tokenizer, seq_len, packing, {"test": shards}, plan)


def _encode_shards(plan: SplitPlan, tokenizer: Tokenizer, packing: Packing, scratch: Path) -> list[ShardResult]:
    saved = scratch / TOKENIZER
    if not saved.exists():
        with atomic_dir(saved) as folder:
            tokenizer.save(folder)
    characters = sum(shard.characters for shard in plan.shards)
    # Subwords need at most one token per character, and bytes one byte per byte.
    check_disk_space(scratch, characters * np.dtype(token_dtype(tokenizer.vocab_size)).itemsize, "tokenizing")
    encode_shard = partial(_encode_shard, plan, saved, packing)
    with Progress("tokenizing", characters) as progress:
        results = map_shards(encode_shard, range(len(plan.shards)), scratch / "tokens", progress)
    for split, count in _left_out(results).items():
        sys.stderr.write(
            f"{split}: the tokenizer {tokenizer.kind!r} leaves nothing of {count:,} documents, which are left out\n"
        )
    return results


def _left_out(results: Sequence[ShardResult]) -> dict[str, int]:
    """Return the number of documents without tokens in each split that has any."""
    counts = {}
    for split in SPLITS:
        summaries = [result.summary["splits"][split] for result in results]
        counts[split] = sum(summary["documents_seen"] - summary["documents"] for summary in summaries)
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
        np.save(window_file(folder, split), np.concatenate(windows[split]), allow_pickle=False)
    return _save_streams(streams, folder, plan.shards[index].characters)


def _has_words_before(plan: SplitPlan, index: int, split: str, tokenizer: Tokenizer) -> bool:
    """Return True if a document of the split in an earlier shard has a word; the first document usually has one."""
    entries = (entry for earlier in range(index) for entry in plan.documents(earlier) if entry.split == split)
    return any((tokenizer.encode(entry.document.text) != tokenizer.eos_id).any() for entry in entries)


def _save_streams(streams: Mapping[str, TokenStream], folder: Path, size: int) -> dict[str, Any]:
    """Write the files of a shard other than its tokens, and return its summary."""
    for split, stream in streams.items():
        digest_file(folder, split).write_bytes(stream.digests)
        np.save(folder / f"{split}_documents.npy", np.array(stream.starts, dtype=np.int64), allow_pickle=False)
    np.save(folder / "unigram.npy", streams["train"].unigram, allow_pickle=False)
    return {"splits": {split: stream.summary for split, stream in streams.items()}, "bytes": size}


def _assign_windows(
    plan: SplitPlan, stream: Sequence[Path], packing: Packing, stream_tokens: int, scratch: Path
) -> dict[str, list[ShardResult]]:
    """Assign the windows of the training stream to splits at random, as in the published split of OpenWebText.

    Window k gets the k-th random number, however the source is divided into shards.
    """
    arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in stream]
    size = sum(array.nbytes for array in arrays)
    windows, count = sum(map(len, arrays)) // stream_tokens, len(plan.shards)
    ends = [windows * number // count for number in range(count + 1)]
    ranges = [(first, end, number == count - 1) for number, (first, end) in enumerate(pairwise(ends))]
    assign_range = partial(_assign_range, plan, tuple(stream), scratch / TOKENIZER, packing, stream_tokens)
    check_disk_space(scratch, size, "assigning windows to splits")
    with Progress("assigning windows", size) as progress:
        results = map_shards(assign_range, ranges, scratch / "windows", progress)
    return dict.fromkeys(_window_fractions(plan), results)


def _window_fractions(plan: SplitPlan) -> dict[str, float]:
    """Return the fraction of the windows of each split that gets any; the training split gets the rest."""
    fractions = {
        split: fraction for split, fraction in zip(EVALUATION_SPLITS, plan.window_fractions, strict=True) if fraction
    }
    return {**fractions, "train": 1 - plan.window_fractions[0] - plan.window_fractions[1]}


def _assign_range(
    plan: SplitPlan,
    stream: Sequence[Path],
    saved: Path,
    packing: Packing,
    stream_tokens: int,
    windows: tuple[int, int, bool],
    folder: Path,
) -> dict[str, Any]:
    """Assign windows from the first to before the end; if `has_rest`, the tokens after them are trained on."""
    first_window, end_window, has_rest = windows
    tokenizer = load_tokenizer(saved)
    tokens = concat_arrays([np.load(file, mmap_mode="r", allow_pickle=False) for file in stream])
    document_starts = _document_starts(stream)
    cuts = [number * stream_tokens for number in range(first_window, end_window + 1)]
    fractions = _window_fractions(plan)
    # All numbers from the first window on: eight bytes per window are little, and no generator has to be stored.
    random = np.random.Generator(np.random.Philox(key=[plan.seed, 0])).random(end_window)[first_window:]
    names = list(fractions)
    owners = np.searchsorted(np.cumsum(list(fractions.values())[:-1]), random, side="right")
    splits = [names[owner] for owner in owners]
    if has_rest and cuts[-1] < len(tokens):
        cuts, splits = [*cuts, len(tokens)], [*splits, "train"]
    with ExitStack() as files:
        streams = {split: TokenStream(folder / f"{split}.npy", tokenizer, packing, files) for split in names}
        for split, (first, end) in zip(splits, pairwise(cuts), strict=True):
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
) -> dict[str, dict[str, int]]:
    """Write tokens, document starts, unigram counts, tokenizer and dataset.json; return the counts of each split."""
    counts: dict[str, dict[str, int]] = {}
    unigram = sum(np.load(result.folder / "unigram.npy", allow_pickle=False) for result in results.get("train", []))
    for split, shards in results.items():
        files = _files(shards, split)
        summaries = [shard.summary["splits"][split] for shard in shards]
        names = ("documents", "tokens", "bytes", "characters", "words")
        counts[split] = {name: sum(summary[name] for summary in summaries) for name in names}
        # Windows that were assigned to a split belong to no document of it.
        document_starts = _document_starts(files) if counts[split]["documents"] else None
        if packing.drop_last and files:
            dropped = _write_windows(folder, split, files, document_starts, seq_len, packing, tokenizer, counts[split])
            if split == "train":
                unigram = unigram - np.bincount(dropped, minlength=tokenizer.vocab_size)
        else:
            for number, file in enumerate(files):
                link_or_copy(file, folder / f"{split}-{number:05d}.npy")
        if document_starts is not None:
            end = counts[split]["tokens"] // seq_len * packing.stream_tokens(seq_len) if packing.drop_last else None
            kept = document_starts if end is None else document_starts[document_starts < end]
            np.save(folder / f"{split}_documents.npy", kept, allow_pickle=False)
        if not counts[split]["characters"]:
            raise ValueError(_why_empty(plan, split, tokenizer, seq_len, counts[split]["tokens"]))
    if "train" in results:
        if counts["train"]["tokens"] < seq_len:
            raise ValueError(
                f"the training split of {plan.shards[0].directory} has {counts['train']['tokens']} tokens, fewer than"
                f" one window of seq_len = {seq_len}; lower the dataset's `seq_len` in params.yaml, or give more text"
            )
        if packing.wrap_with_eos:
            unigram[tokenizer.eos_id] += 2 * counts["train"]["tokens"] // seq_len
        np.save(folder / "unigram.npy", unigram, allow_pickle=False)
    tokenizer.save(folder)
    header = DatasetHeader(
        modality="text",
        tokenizer=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        shape=(seq_len,),
        seq_len=seq_len,
        classes=0,
        splits=counts,
        drop_last=packing.drop_last,
        wrap_ids=(tokenizer.eos_id,) if packing.wrap_with_eos else (),
        separate_documents=packing.separate_documents,
    )
    write_header(folder, header)
    return counts


def _files(results: Sequence[ShardResult], split: str) -> list[Path]:
    """Return the files with tokens of a split."""
    return [result.folder / f"{split}.npy" for result in results if result.summary["splits"][split]["tokens"]]


def _document_starts(files: Sequence[Path]) -> NDArray[np.int64]:
    """Return the position at which each document begins in the stream of these token files."""
    starts, position = [np.empty(0, dtype=np.int64)], 0
    for file in files:
        starts.append(position + np.load(file.with_name(f"{file.stem}_documents.npy"), allow_pickle=False))
        position += len(np.load(file, mmap_mode="r", allow_pickle=False))
    return np.concatenate(starts)


def _write_windows(
    folder: Path,
    split: str,
    files: Sequence[Path],
    document_starts: NDArray[np.int64] | None,
    seq_len: int,
    packing: Packing,
    tokenizer: Tokenizer,
    counts: dict[str, int],
) -> NDArray[np.int64]:
    """Write whole windows, correct the counts, and return the dropped tokens."""
    stream_tokens = packing.stream_tokens(seq_len)
    arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
    windows = counts["tokens"] // stream_tokens
    end = left = windows * stream_tokens
    for number, (file, tokens) in enumerate(zip(files, arrays, strict=True)):
        target = folder / f"{split}-{number:05d}.npy"
        if len(tokens) <= left:
            link_or_copy(file, target)
        elif left:
            np.save(target, tokens[:left], allow_pickle=False)
        left -= min(left, len(tokens))
    stream: NDArray[Any] | ConcatArray[Any] = concat_arrays(arrays)
    text = decode_between(tokenizer, stream, end, len(stream))
    # A lossy tokenizer's text is what its tokens decode to: the end-of-text token of text8 is a space.
    eos_text = tokenizer.decode(np.array([tokenizer.eos_id]))
    wrapping = "" if tokenizer.is_lossless or not packing.wrap_with_eos else 2 * windows * eos_text
    counts["characters"] += len(wrapping) - len(text)
    counts["bytes"] += len(wrapping.encode()) - len(text.encode())
    if document_starts is not None:
        counts["words"] -= count_words(tokenizer, stream, document_starts, end, len(stream))
    counts["tokens"] = windows * seq_len
    return stream[end:].astype(np.int64)


def _document_stats(results: Sequence[ShardResult], split: str) -> dict[str, Any]:
    """Return the manifest's statistics of documents, before windows are cut."""
    summaries = [result.summary["splits"][split] for result in results]
    lengths = np.sum([summary["lengths"] for summary in summaries], axis=0)
    return {
        "unk_tokens": sum(summary["unk_tokens"] for summary in summaries),
        "longest_document": max(summary["longest_document"] for summary in summaries),
        "lengths": np.trim_zeros(lengths, "b").tolist(),
    }


def _why_empty(plan: SplitPlan, split: str, tokenizer: Tokenizer, seq_len: int, tokens: int) -> str:
    """Explain why a split has no text, and so no bits per character."""
    if tokens:
        return (
            f"the {split} split has {tokens} tokens and no character: its documents are empty or unknown to the"
            f" tokenizer {tokenizer.kind!r}; set the source's `empty_documents` to drop, or choose another tokenizer in"
            " params.yaml"
        )
    if dict(zip(EVALUATION_SPLITS, plan.window_fractions, strict=True)).get(split):
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
