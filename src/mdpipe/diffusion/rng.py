"""Counter-based random numbers: each is a pure function of (seed, stream, step, example, position).

No generator has a state, so the numbers depend neither on the batch, the rank and the device nor on earlier calls.
The function is Philox4x32-10 (Salmon et al., 2011), written in 64-bit integer operations that every device has.

Shapes: B batch.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Words = tuple[Tensor, Tensor, Tensor, Tensor]

_LOW = 0xFFFF_FFFF
_MULTIPLIERS = (0xD251_1F53, 0xCD9E_8D57)
_KEY_STEPS = (0x9E37_79B9, 0xBB67_AE85)


def philox(counter: Words, key: tuple[int, int] | tuple[Tensor, Tensor], rounds: int = 10) -> Words:
    """Compute Philox4x32: one block of four pseudorandom 32-bit words for each counter.

    Args:
        counter: Four int64 tensors of values below 2^32, of shapes that broadcast together.
        key: Two values below 2^32, or two int64 tensors of them that broadcast with the counter.
        rounds: 10 is the standard, with a margin; 7 are the fewest that pass BigCrush (Salmon et al., 2011, Table 2).

    Returns:
        Four int64 tensors of values below 2^32, of the broadcast shape.
    """
    word0, word1, word2, word3 = counter
    key0, key1 = key
    for _ in range(rounds):
        # The product of two 32-bit words overflows into int64's sign bit; both of its halves are still correct.
        product0, product1 = word0 * _MULTIPLIERS[0], word2 * _MULTIPLIERS[1]
        word0, word1, word2, word3 = (
            ((product1 >> 32) & _LOW) ^ word1 ^ key0,
            product1 & _LOW,
            ((product0 >> 32) & _LOW) ^ word3 ^ key1,
            product0 & _LOW,
        )
        key0, key1 = (key0 + _KEY_STEPS[0]) & _LOW, (key1 + _KEY_STEPS[1]) & _LOW
    return word0, word1, word2, word3


@dataclass(frozen=True)
class CounterRNG:
    """A stateless source of uniforms. Streams and seeds are independent: the key is a 64-bit hash."""

    seed: int
    stream: str

    @cached_property
    def key(self) -> tuple[int, int]:
        """Return Philox's key: the first 64 bits of the SHA-256 of seed and stream."""
        digest = hashlib.sha256(f"{self.seed}:{self.stream}".encode()).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")

    def child(self, stream: str) -> "CounterRNG":
        """Return the source of a stream below this one, which is independent of it."""
        return CounterRNG(self.seed, f"{self.stream}/{stream}")

    def uniform(self, step: int, examples: Tensor, count: int) -> Tensor:
        """Return uniforms in [0, 1) with the full 53-bit resolution of float64.

        The first n of `count` numbers are the numbers of count = n.

        Args:
            step: The step of training, sampling or evaluation; below 2^32.
            examples: (B,) int64, global example indices; the result is on their device.
            count: Numbers per example.

        Returns:
            (B, count) float64.
        """
        block = torch.arange((count + 1) // 2, device=examples.device)
        word0, word1, word2, word3 = self._words(step, examples, block)
        high, low = torch.stack([word0, word2], dim=-1), torch.stack([word1, word3], dim=-1)
        bits = (high << 21) | (low >> 11)
        return (bits.to(torch.float64) * 2.0**-53).flatten(1)[:, :count]

    def keys(self, step: int, examples: Tensor) -> Tensor:
        """Return a 64-bit key for each example, (B, 2) int64 words below 2^32, from which dropout masks are derived."""
        return torch.cat(self._words(step, examples, torch.zeros_like(examples[:1]))[:2], dim=1)

    def _words(self, step: int, examples: Tensor, block: Tensor) -> Words:
        """Return four words for each example (B,) and each of its blocks (N,), all (B, N)."""
        example = examples.to(torch.int64)[:, None]
        counter = (block[None, :], example & _LOW, (example >> 32) & _LOW, torch.full_like(example[:1], step))
        return philox(counter, self.key)


def stratified_times(rng: CounterRNG, step: int, examples: Tensor, batch: int) -> Tensor:
    """Return times t_i = (u + i / batch) mod 1 with one u per step (Alg. 1): each is uniform, together evenly spread.

    Args:
        rng: The source of u; the masks need another one, a `child` say.
        step: Step, as in `CounterRNG.uniform`.
        examples: (B,) int64, indices i in the global batch, of which a rank may hold a part.
        batch: Size of the global batch.

    Returns:
        (B,) float64 in [0, 1).
    """
    shared = rng.uniform(step, torch.zeros_like(examples[:1]), 1)[:, 0]
    return (shared + (examples % batch).to(torch.float64) / batch) % 1
