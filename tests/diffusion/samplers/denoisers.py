"""Small denoisers with known distributions, and helpers of the tests of samplers."""

import torch
from torch import Tensor

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerConfig
from tests.diffusion.tables import Tabular

RNG = CounterRNG(0, "test")


def sampler_of(kind: str, steps: int, time_grid: str = "uniform", **settings: float | str) -> Sampler:
    """Return the sampler of a kind, on this grid of times if it has one."""
    config = SamplerConfig.kinds[kind]
    if issubclass(config, DiscreteTimeSamplerConfig):
        settings |= {"steps": steps, "time_grid": time_grid}
    return Sampler.build(config(**settings))


class CopiedBit:
    """Exact conditionals of two tokens that are one fair bit twice: log-probabilities (B, 2, 2)."""

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        other = tokens.flip(1)
        chances = torch.stack([other == 0, other == 1], dim=-1).double()
        return torch.where((other == 2)[..., None], 0.5, chances).log()

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


class Independent:
    """Independent tokens with these probabilities, so only the choice of positions matters."""

    def __init__(self, *chances: float) -> None:
        self.logits = torch.tensor(chances, dtype=torch.float64).log()

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


class Labeled:
    """Every token of a sequence is its class, with certainty."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        assert class_labels is not None and len(class_labels) == len(tokens) == len(time)
        return class_labels[:, None, None].expand(*tokens.shape, 1)

    def head(self, hidden: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(hidden.squeeze(-1), self.vocab_size).double().log()


class Tempered(Tabular):
    """A table whose logits grow with time, so that the time matters."""

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        return super().forward(tokens, time, class_labels) * (0.5 + 2 * time[:, None, None])


class Mixing:
    """Random weights, for sequences of any length up to 8; every output depends on all positions that it may see.

    Records the times of each call.
    """

    def __init__(self, vocab_size: int, causal: bool) -> None:
        random = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(vocab_size + 1, 4, generator=random, dtype=torch.float64)
        self.places = torch.randn(8, 4, generator=random, dtype=torch.float64)
        self.output = torch.randn(4, vocab_size, generator=random, dtype=torch.float64)
        self.causal = causal
        self.times: list[Tensor] = []

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        self.times.append(time)
        x = self.embedding[tokens] * self.places[: tokens.shape[1]]
        past = x.cumsum(dim=1)
        return (past if self.causal else past + x.sum(dim=1, keepdim=True)) + time[:, None, None]

    def head(self, hidden: Tensor) -> Tensor:
        return torch.tanh(hidden) @ self.output


class Counted:
    """Wraps a denoiser and records the number of rows of each call of its body and of its head."""

    def __init__(self, denoiser) -> None:
        self.denoiser = denoiser
        self.body_rows: list[int] = []
        self.head_rows: list[int] = []

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        self.body_rows.append(len(tokens))
        return self.denoiser(tokens, time, class_labels)

    def head(self, hidden: Tensor) -> Tensor:
        self.head_rows.append(hidden.shape[:-1].numel())
        return self.denoiser.head(hidden)


def all_masks(batch: int, length: int, vocab_size: int = 2) -> Tensor:
    return torch.full((batch, length), vocab_size)
