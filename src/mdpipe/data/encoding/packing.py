"""How documents become one stream of tokens, and the stream examples: conventions that change a perplexity."""

from dataclasses import dataclass
from typing import Literal

Remainder = Literal["keep", "drop"]


@dataclass(frozen=True)
class Packing:
    """A convention."""

    end_of_text: bool
    """Whether the end-of-text token follows every document."""
    block_ends: bool
    """Whether every block begins and ends with the end-of-text token; its first and last token are these."""
    remainder: Remainder
    """What becomes of the tokens that do not fill a last block: a shorter example in evaluation, or nothing. Where they
    are kept, training reads windows that begin anywhere; where they are dropped, it reads blocks in random orders."""

    def __post_init__(self) -> None:
        if self.block_ends and self.remainder == "keep":
            raise ValueError("packing.block_ends needs whole blocks; set packing.remainder to drop")

    def content(self, length: int) -> int:
        """Tokens of the stream in a block of so many tokens."""
        return length - 2 * self.block_ends


CONVENTIONS = {
    "stream": Packing(end_of_text=True, block_ends=False, remainder="keep"),
    "text8": Packing(end_of_text=False, block_ends=False, remainder="drop"),
    "sedd": Packing(end_of_text=True, block_ends=False, remainder="drop"),
    "mdlm": Packing(end_of_text=True, block_ends=True, remainder="drop"),
    "mdlm_zero_shot": Packing(end_of_text=False, block_ends=True, remainder="drop"),
}
"""Ours, in which every token counts once; text8 as MD4 cuts it; SEDD's, which MD4 follows; MDLM's in training, and in
its zero-shot evaluation."""
