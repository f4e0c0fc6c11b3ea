"""Windows that overlap: every token once, the exact conditional of a source whose context is as long as stated."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.data.dataset import DatasetHeader, EncodedDataset, write_header
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.conditional import sliding_bound
from mdpipe.evaluation.enumerated import exact_denoiser
from mdpipe.evaluation.estimate import PILOT_SAMPLES
from mdpipe.evaluation.likelihood import zero_shot_bound
from mdpipe.params import EstimatorConfig
from mdpipe.params.diffusion import AnyOrderConfig, AutoregressiveConfig, GenMD4Config, MD4Config, ObjectiveConfig

L = 4
SECOND_ORDER = torch.tensor([[[0.95, 0.05], [0.1, 0.9]], [[0.2, 0.8], [0.7, 0.3]]], dtype=torch.float64)
"""P(x_3 | x_1, x_2) of a source of bits that remembers two of them."""
OBJECTIVES: list[ObjectiveConfig] = [MD4Config(), MD4Config(timesteps=20), AnyOrderConfig(), AutoregressiveConfig()]


def corpus_of(
    folder: Path, tokens: NDArray[np.int64], documents: list[int], *, separate: bool = False
) -> EncodedDataset:
    """A text of these bits, whose documents begin at these positions."""
    folder.mkdir(parents=True)
    np.save(folder / "test-00000.npy", tokens.astype(np.uint8))
    np.save(folder / "test_documents.npy", np.array(documents))
    np.save(folder / "unigram.npy", np.array([3, 5]))
    counts = dict.fromkeys(("tokens", "bytes", "characters"), len(tokens)) | {"documents": len(documents), "words": 1}
    header = DatasetHeader(
        modality="text", tokenizer="bytes", vocab_size=2, shape=(L,), seq_len=L, classes=0, splits={"test": counts},
        separate_documents=separate,
    )  # fmt: skip
    write_header(folder, header)
    return EncodedDataset.open(folder, "test")


@cache
def joint_of_windows() -> Tensor:
    """The stationary distribution of L neighboring bits."""
    pairs = torch.full((2, 2), 0.25, dtype=torch.float64)
    for _ in range(200):
        pairs = torch.einsum("ab,abc->bc", pairs, SECOND_ORDER)
    joint = pairs
    for _ in range(L - 2):
        joint = joint[..., None] * SECOND_ORDER
    return joint


class Exact(nn.Module):
    """The exact conditionals of the source as a network; what a shorter window lacks is masked."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.denoiser = exact_denoiser(objective, joint_of_windows())
        self.device = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        whole = functional.pad(tokens, (0, L - tokens.shape[1]), value=2)
        return self.denoiser(whole, t, class_labels)[:, : tokens.shape[1]]

    def head(self, hidden: Tensor) -> Tensor:
        return self.denoiser.head(hidden)


def conditional_nats(window: NDArray[np.int64], context: int) -> float:
    """-log P of the bits of a window after its context, by the joint distribution."""
    joint = joint_of_windows()
    joint = joint.sum(dim=tuple(range(len(window), L))) if len(window) < L else joint
    seen = joint.sum(dim=tuple(range(context, len(window)))) if context else joint.sum()
    return float(seen[tuple(window[:context])].log() - joint[tuple(window)].log())


@given(lengths=st.lists(st.integers(1, 23), min_size=1, max_size=5), stride=st.integers(1, L), separate=st.booleans())
@settings(deadline=None, max_examples=60)
def test_every_token_is_new_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], stride: int, separate: bool
) -> None:
    """In order; a context is whole, before what is new, and in the same document if documents are separate."""
    documents = np.cumsum([0, *lengths[:-1]]).tolist()
    tokens = np.zeros(sum(lengths), dtype=np.int64)
    corpus = corpus_of(tmp_path_factory.mktemp("corpus") / "c", tokens, documents, separate=separate)
    starts, contexts, sizes = corpus.sliding_windows(stride)
    rows = list(zip(starts.tolist(), contexts.tolist(), sizes.tolist(), strict=True))
    assert [i for start, context, size in rows for i in range(start + context, start + size)] == [*range(sum(lengths))]
    assert sizes.max() <= L
    first = set(documents if separate else [0])
    for start, context, size in rows:
        assert context == (0 if start in first and context == 0 else L - stride)
        assert size > context
        if separate:
            assert np.searchsorted(documents, start, "right") == np.searchsorted(documents, start + size - 1, "right")
    assert len(corpus.window_clusters(stride)[1]) == len(rows)


@pytest.mark.parametrize("config", [*OBJECTIVES, GenMD4Config()], ids=lambda config: config.kind)
def test_a_stride_of_whole_windows_is_zero_shot_bound(tmp_path: Path, config: ObjectiveConfig) -> None:
    """To the digit."""
    tokens = np.random.default_rng(0).integers(0, 2, 4 * L + 3)
    corpus, objective = corpus_of(tmp_path / "c", tokens, [0, 5]), Objective.build(config, 2)
    network, chosen = Exact(objective), EstimatorConfig(num_mc_samples=4)
    expected = zero_shot_bound(objective, network, corpus, chosen, CounterRNG(0, "zero shot"))
    found = sliding_bound(objective, network, corpus, L, chosen, CounterRNG(0, "zero shot"))
    assert found.per_example.tolist() == expected.per_example.tolist()
    assert (found.value, found.stderr, found.stderr_mc) == (expected.value, expected.stderr, expected.stderr_mc)


@pytest.mark.parametrize("config", OBJECTIVES, ids=lambda config: f"{config.kind}-{getattr(config, 'timesteps', 0)}")
def test_longer_context_lowers_the_bound_to_the_entropy_rate(tmp_path: Path, config: ObjectiveConfig) -> None:
    """Each stride has the exact -log p of its windows; the source remembers 2 tokens, so strides 1 and 2 are its rate.

    A masked model's true z-score exceeds 5 once in two million runs, and the entropy of 800 tokens is within 0.03 of
    the source's.
    """
    random, tokens = np.random.default_rng(0), [0, 0]
    while len(tokens) < 802:
        tokens.append(int(random.random() < SECOND_ORDER[tokens[-2], tokens[-1], 1].item()))
    stream = np.array(tokens[2:])
    corpus, objective = corpus_of(tmp_path / "c", stream, [0, 200, 500]), Objective.build(config, 2)
    network, chosen, bounds = Exact(objective), EstimatorConfig(num_mc_samples=8, batch_size=512), {}
    for stride in (1, 2, 3):
        found = sliding_bound(objective, network, corpus, stride, chosen, CounterRNG(0, "zero shot"))
        starts, contexts, sizes = corpus.sliding_windows(stride)
        windows = zip(starts.tolist(), contexts.tolist(), sizes.tolist(), strict=True)
        exact = sum(conditional_nats(stream[start : start + size], context) for start, context, size in windows)
        assert abs(found.value * 800 - exact) <= 5 * found.stderr_mc * 800 + 1e-9
        assert (found.tokens, found.examples) == (800, len(starts))
        assert (found.stderr_mc == 0) == objective.is_exact
        bounds[stride] = exact / 800
    joint = joint_of_windows()
    rate = -(joint * joint.log()).sum() + (joint.sum(dim=3) * joint.sum(dim=3).log()).sum()
    assert bounds[1] == pytest.approx(bounds[2], abs=0.01)
    assert bounds[1] == pytest.approx(rate.item(), abs=0.03)
    assert bounds[3] > bounds[2] + 0.02


def test_auto_meets_the_half_width_of_overlapping_windows(tmp_path: Path) -> None:
    objective = Objective.build(MD4Config(), 2)
    corpus = corpus_of(tmp_path / "c", np.random.default_rng(0).integers(0, 2, 400), [0])
    chosen = EstimatorConfig(num_mc_samples="auto", half_width=0.1, batch_size=512)
    found = sliding_bound(objective, Exact(objective), corpus, 3, chosen, CounterRNG(0, "zero shot"))
    assert found.nfe == PILOT_SAMPLES + found.num_mc_samples
    assert 1.96 * found.stderr_mc / math.log(2) < 0.1


@pytest.mark.parametrize("stride", [0, L + 1])
def test_a_stride_beyond_the_window_is_refused(tmp_path: Path, stride: int) -> None:
    objective = Objective.build(MD4Config(), 2)
    corpus = corpus_of(tmp_path / "c", np.zeros(20, dtype=np.int64), [0])
    with pytest.raises(ValueError, match=f"a stride of {stride} is not between 1 and the window of 4 tokens"):
        sliding_bound(objective, Exact(objective), corpus, stride, EstimatorConfig(), CounterRNG(0, "zero shot"))
