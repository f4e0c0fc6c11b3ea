"""Numbers that are not bounds, as examples that the audit must refuse.

Each shows one way to fall below the entropy: a token that is weighted less than once, a step of the process in place of
all of them, and a unit that is not counted.

Shapes: B batch, L length, D sub-tokens of a token; the mask's index is V.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO
from mdpipe.diffusion.objectives.md4 import MD4, masked_token_losses
from mdpipe.evaluation.audit import Check, compare
from mdpipe.evaluation.enumerated import Source, exact_denoiser, independent_tokens, zipf
from mdpipe.evaluation.expected_elbo import mean_elbo
from mdpipe.params.diffusion import LinearConfig, MD4Config

CONFIG = MD4Config(schedule=LinearConfig(epsilon=0.0))
"""Without epsilon there are no boundary terms, and all figures are exact."""
ZIPF_TOKENS = 64
ID_FACTOR = 5
"""Token r of Zipf's list has the id 5 r mod 64, since tokenizers do not number tokens by frequency."""
SUBTOKENS = (2, 3, 6)
RANKS_PER_BYTE = 7
MAX_BYTES = 8
ASSUMED_BYTES = 4.3
"""Bytes per token of a common tokenizer of English."""


class JointSubtokens(MD4):
    r"""Tokens as D sub-tokens, with the joint cross entropy of a token's masked sub-tokens weighted once.

    diffusion = (1 / t) * sum over tokens of -log mu(masked sub-tokens | x_t)

    A bound takes the sum over the masked sub-tokens of their marginal cross entropies: each is a token of the process.
    That sum is larger than the joint one wherever sub-tokens depend on each other.
    """

    def __init__(self, vocab_size: int, subtokens: int) -> None:
        super().__init__(CONFIG, vocab_size)
        self.subtokens = subtokens

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one sample; by the chain rule, the joint is a product of conditionals of one sub-token each."""
        t, weight = self.time_and_weight(t)
        x_t = self.q_sample(x0, t, u)
        is_masked = x_t == self.mask_id
        positions = torch.arange(x0.shape[1])
        cross_entropy = torch.zeros_like(t)
        for position in positions.tolist():
            is_earlier = (positions < position) & (positions // self.subtokens == position // self.subtokens)
            context = torch.where(is_earlier, x0, x_t)
            logits = model.head(model(context, t, class_labels)[:, position])
            cross_entropy += torch.where(is_masked[:, position], self.token_loss(logits, x0[:, position]), 0)
        return self.add_boundary_terms(weight * cross_entropy, x0.shape[1])


class UnweightedSnapshot(MD4):
    """The mean over random times of the masked tokens' cross entropy, without the weight -alpha' / (1 - alpha)."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(CONFIG, vocab_size)

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one sample."""
        cross_entropy = masked_token_losses(self, model, self.q_sample(x0, t, u), t, class_labels, x0).sum(dim=1)
        return self.add_boundary_terms(cross_entropy, x0.shape[1])


def subtoken_source(subtokens: int) -> Source:
    """Return one Zipf token as sub-tokens, the digits of its id; bits are per token."""
    frequencies = torch.empty(ZIPF_TOKENS, dtype=torch.float64)
    frequencies[torch.arange(ZIPF_TOKENS) * ID_FACTOR % ZIPF_TOKENS] = zipf(ZIPF_TOKENS)
    base = round(ZIPF_TOKENS ** (1 / subtokens))
    return Source(frequencies.view([base] * subtokens), units=1)


def joint_subtokens() -> Iterator[Check]:
    """Yield the joint weighting for several numbers of sub-tokens."""
    for subtokens in SUBTOKENS:
        source = subtoken_source(subtokens)
        objective = JointSubtokens(source.vocab_size, subtokens)
        mean = mean_elbo(objective, exact_denoiser(objective, source.joint), source.sequences)
        name = f"Zipf, 64 tokens of {subtokens} sub-tokens"
        yield compare("", name, "exact", source, mean.over(source.probabilities))


def unweighted_snapshot() -> Iterator[Check]:
    """Yield the unweighted mean on fair coins."""
    source = Source(independent_tokens([0.5, 0.5], 2), units=2)
    objective = UnweightedSnapshot(source.vocab_size)
    mean = mean_elbo(objective, exact_denoiser(objective, source.joint), source.sequences)
    yield compare("", "fair coins", "exact", source, mean.over(source.probabilities))


def token_bytes() -> Tensor:
    """Return the length in bytes of each Zipf token: 1 for the most frequent ones, longer for rarer ones."""
    return (1 + torch.arange(ZIPF_TOKENS) // RANKS_PER_BYTE).clamp(max=MAX_BYTES)


def assumed_bytes() -> Iterator[Check]:
    """Yield bits/byte by MD4's bound with assumed bytes per token, where the entropy has the counted ones."""
    counted = (zipf(ZIPF_TOKENS) @ token_bytes().double()).item()
    source = Source(zipf(ZIPF_TOKENS), units=counted)
    objective = MD4(CONFIG, ZIPF_TOKENS)
    mean = mean_elbo(objective, exact_denoiser(objective, source.joint), source.sequences)
    claimed = mean.over(source.probabilities).scaled(counted / ASSUMED_BYTES)
    yield compare("", f"Zipf, 64 tokens of {counted:.3f} bytes, taken for {ASSUMED_BYTES}", "exact", source, claimed)


@dataclass(frozen=True)
class Counterexample:
    """A number that is not a bound, and the reason."""

    checks: Callable[[], Iterator[Check]]
    unit: str
    reason: str


COUNTEREXAMPLES = {
    "joint_subtokens": Counterexample(
        joint_subtokens,
        "bits/token",
        "each masked sub-token must be weighted, with its own cross entropy; the joint of a token's sub-tokens,"
        " weighted once, leaves out what they say about each other",
    ),
    "unweighted_snapshot": Counterexample(
        unweighted_snapshot,
        "bits/token",
        "without the weight -alpha' / (1 - alpha), a token counts only for the fraction of the time at which it is"
        " masked: on average one half",
    ),
    "assumed_bytes": Counterexample(
        assumed_bytes,
        "bits/byte",
        "the bits are divided by more bytes than the text has; bytes must be counted in the text that is evaluated",
    ),
}
