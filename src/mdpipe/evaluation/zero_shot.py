"""Zero-shot evaluation: how well a model knows text of a kind that it was not trained on.

The convention, which decides the number as much as the model does:

- The whole corpus counts; nothing of it was trained on, so it is not split.
- Its text is taken as it is, encoded with the tokenizer of the model's training data, each document followed by the
  tokenizer's separator. All are one stream, cut from its first token on into windows of the model's length. Windows do
  not overlap, and what is left at the end is a shorter window of its own: every token is counted exactly once.
- Perplexity is exp of the bound in nats per token, separators counted as tokens.
- Bits per byte and per character are all tokens' bits, the separators' too, divided by the size of the text alone. For
  a tokenizer that loses something (letters) the text is what the tokens decode to, separators included.
- As in all evaluation the bound is an average over several draws of time and mask an example, with averaged weights.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from mdpipe.data.encoded.dataset import EncodedDataset
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.evaluation.estimate import Estimate
from mdpipe.evaluation.likelihood import Bits, Likelihood, likelihood_bound

if TYPE_CHECKING:
    from mdpipe.params.runs import Draws


@dataclass(frozen=True)
class ZeroShot:
    """A model's bound on a foreign corpus, with the size of its text."""

    likelihood: Likelihood
    bytes: int
    characters: int

    def perplexity(self) -> Estimate:
        """Per token, hence for one tokenizer only."""
        return self.likelihood.perplexity()

    def bits_per_byte(self) -> Bits:
        """Comparable between tokenizers that lose nothing."""
        return self.likelihood.bits_per(self.bytes)

    def bits_per_character(self) -> Bits:
        """Comparable between tokenizers that lose nothing."""
        return self.likelihood.bits_per(self.characters)


def zero_shot(
    objective: Objective, network: nn.Module, corpus: EncodedDataset, settings: "Draws", noise: Noise
) -> ZeroShot:
    """Bound the corpus, which was encoded with the tokenizer and the window length of the model's own dataset.

    Raises:
        ValueError: the corpus is no text, has another vocabulary than the model, or is shorter than two windows.
    """
    if corpus.modality != "text":
        raise ValueError(f"{corpus.directory} holds {corpus.modality} data; zero-shot corpora are text")
    likelihood = likelihood_bound(objective, network, corpus, settings, noise)
    return ZeroShot(likelihood, bytes=corpus.counts["bytes"], characters=corpus.counts["characters"])
