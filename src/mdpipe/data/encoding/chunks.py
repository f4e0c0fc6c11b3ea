"""Blocks of one stream of text that go to the splits at random, as in the published split of OpenWebText."""

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.encoding.token_stream import SHARED, TokenStream, text_between
from mdpipe.data.raw.material import Document
from mdpipe.data.splits.plan import SplitPlan
from mdpipe.data.tokenizers import Tokenizer


class ChunkedStream:
    """The stream of a shard, whose blocks go to the splits at random: the published split of OpenWebText."""

    def __init__(
        self, streams: dict[str, TokenStream], tokenizer: Tokenizer, plan: SplitPlan, shard: int, length: int
    ) -> None:
        self._streams, self._tokenizer, self._length = streams, tokenizer, length
        self._random = np.random.Generator(np.random.Philox(key=[plan.seed, shard]))
        self._validation, self._test = plan.chunks
        self._tokens: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._first = 0
        """The first token that is in no block yet; those before it are kept for what they share with it."""

    def append(self, document: Document) -> None:
        """Cut the blocks that are full."""
        self._tokens = np.concatenate([self._tokens, self._streams["train"].tokens(document)])
        while self._first + self._length <= len(self._tokens):
            drawn = self._random.random()
            split = "validation" if drawn < self._validation else "train"
            self._add("test" if self._validation <= drawn < self._validation + self._test else split, self._length)
        kept = max(self._first - SHARED, 0)
        self._tokens, self._first = self._tokens[kept:], self._first - kept

    def finish(self) -> None:
        """What fills no block is trained on."""
        if self._first < len(self._tokens):
            self._add("train", len(self._tokens) - self._first)

    def _add(self, split: str, count: int) -> None:
        end = self._first + count
        text = text_between(self._tokenizer, self._tokens, self._first, end)
        self._streams[split].add(self._tokens[self._first : end], text, text)
        self._first = end
