"""Blocks of the stream of text that go to the splits at random, as in the published split of OpenWebText.

Block k is the k-th of the whole stream and goes by the k-th random number, however the source is cut in shards.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.joined import joined
from mdpipe.data.artifacts.room import require_room
from mdpipe.data.encoding.manifest import digests_of
from mdpipe.data.encoding.packing import Packing
from mdpipe.data.encoding.token_stream import TokenStream, text_between
from mdpipe.data.splits.plan import SplitPlan
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.data.work.piecewise import Piece, piecewise
from mdpipe.data.work.progress import Progress


@dataclass(frozen=True)
class _Blocks:
    """What a process is told of the neighbouring blocks that it is to deal."""

    plan: SplitPlan
    stream: tuple[Path, ...]
    """The files of the whole stream."""
    tokenizer: Path
    packing: Packing
    content: int
    """Tokens of a block."""
    first: int
    end: int
    with_rest: bool
    """Whether the tokens after the last block, which fill none, come along: they are trained on."""


def deal_blocks(
    plan: SplitPlan, stream: Sequence[Path], tokenizer: Path, packing: Packing, content: int, scratch: Path
) -> dict[str, list[Piece]]:
    """Cut the stream into blocks of `content` tokens and deal them; give the pieces of every split that gets some.

    Args:
        plan: the shares, and the seed.
        stream: its files in order.
        tokenizer: a folder.
        packing: how the stream was made.
        content: tokens of a block.
        scratch: where finished pieces are kept.
    """
    arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in stream]
    size = sum(array.nbytes for array in arrays)
    blocks, count = sum(map(len, arrays)) // content, len(plan.shards)
    ends = [blocks * number // count for number in range(count + 1)]
    items = [
        _Blocks(plan, tuple(stream), tokenizer, packing, content, ends[number], ends[number + 1], number == count - 1)
        for number in range(count)
    ]
    require_room(scratch, size, "dealing blocks to splits")
    with Progress("dealing blocks", size) as progress:
        pieces = piecewise(_deal, items, scratch / "blocks", progress)
    return dict.fromkeys(_shares(plan), pieces)


def _shares(plan: SplitPlan) -> dict[str, float]:
    """The splits that get blocks by chance, and which share; the rest of the blocks is for training."""
    validation, test = plan.chunks
    held_out = {split: share for split, share in (("validation", validation), ("test", test)) if share}
    return {**held_out, "train": 1 - validation - test}


def _deal(blocks: _Blocks, folder: Path) -> dict[str, Any]:
    tokenizer = load_tokenizer(blocks.tokenizer)
    tokens = joined([np.load(file, mmap_mode="r", allow_pickle=False) for file in blocks.stream])
    cuts = [number * blocks.content for number in range(blocks.first, blocks.end + 1)]
    splits = _splits(blocks.plan, blocks.first, blocks.end)
    if blocks.with_rest and cuts[-1] < len(tokens):
        cuts, splits = [*cuts, len(tokens)], [*splits, "train"]
    with ExitStack() as files:
        streams = {
            split: TokenStream(folder / f"{split}.npy", tokenizer, blocks.packing, files)
            for split in _shares(blocks.plan)
        }
        for split, (first, end) in zip(splits, pairwise(cuts), strict=True):
            text = text_between(tokenizer, tokens, first, end)
            streams[split].add(tokens[first:end], text, text)
    for split, stream in streams.items():
        digests_of(folder, split).write_bytes(stream.digests)
    np.save(folder / "unigram.npy", streams["train"].unigram, allow_pickle=False)
    size = (cuts[-1] - cuts[0]) * tokens.dtype.itemsize
    return {"splits": {split: stream.summary for split, stream in streams.items()}, "bytes": size}


def _splits(plan: SplitPlan, first: int, end: int) -> list[str]:
    """Of each of these blocks."""
    # All from the first one on: eight bytes a block are little, and no generator is left where another one was.
    drawn: NDArray[np.float64] = np.random.Generator(np.random.Philox(key=[plan.seed, 0])).random(end)[first:]
    shares = _shares(plan)
    places = np.searchsorted(np.cumsum(list(shares.values())[:-1]), drawn, side="right")
    names = list(shares)
    return [names[place] for place in places]
