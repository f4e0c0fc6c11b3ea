"""What holds for every sampler that params.yaml may name, whatever it does in between."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.schedules.cosine import Cosine
from mdpipe.diffusion.schedules.linear import Linear
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.kinds import kinds_of
from tests.diffusion.samplers.denoisers import NOISE, Independent, Labelled, Mixing, masks, sampler_of

V, L = 3, 4

SAMPLERS = kinds_of("mdpipe.diffusion.samplers", Sampler)
every_sampler = pytest.mark.parametrize("kind", sorted(SAMPLERS))
sequences = st.lists(st.lists(st.integers(0, V), min_size=L, max_size=L), min_size=1, max_size=6)
ways = st.sampled_from([(Linear(), "cosine"), (Cosine(0.2), "uniform")])


def start_for(kind: str, rows: list[list[int]]) -> Tensor:
    """The sequences, what follows the first mask being masked too for a sampler that goes left to right."""
    tokens = torch.tensor(rows, dtype=torch.int64).view(-1, L)
    if SAMPLERS[kind].is_causal:
        tokens = tokens.where((tokens == V).cumsum(dim=1) == 0, V)
    return tokens


@every_sampler
@given(rows=sequences, way=ways, steps=st.integers(1, 5))
def test_masks_are_filled_and_given_tokens_never_change(kind, rows, way, steps):
    """Not even for a step, nor is anything written to what was given or told."""
    schedule, grid = way
    tokens = start_for(kind, rows)
    before, trace = tokens.clone(), []
    samples = sampler_of(kind, steps, grid)(
        Mixing(V, SAMPLERS[kind].is_causal),
        schedule,
        V,
        tokens,
        NOISE,
        torch.arange(len(tokens)),
        on_step=lambda done, of, state: trace.append((done, of, state, state.clone())),
    )
    assert torch.equal(tokens, before) and samples.data_ptr() != tokens.data_ptr()
    assert samples.dtype == torch.int64 and ((samples >= 0) & (samples < V)).all()
    given_places = tokens != V
    for _, _, told, copy in trace:
        assert torch.equal(told, copy)
        assert torch.equal(told[given_places], tokens[given_places])
    assert [done for done, *_ in trace] == list(range(1, len(trace) + 1))
    assert {of for _, of, *_ in trace} <= {len(trace)}
    assert torch.equal(trace[-1][2] if trace else tokens, samples)


@every_sampler
@given(rows=sequences, first=st.integers(0, 2**40), cut=st.integers(0, 6), way=ways)
def test_a_sample_does_not_depend_on_its_batch(kind, rows, first, cut, way):
    schedule, grid = way
    tokens = start_for(kind, rows)
    examples, sampler = first + torch.arange(len(tokens)), sampler_of(kind, 4, grid)

    def sample(part: slice) -> Tensor:
        return sampler(Mixing(V, SAMPLERS[kind].is_causal), schedule, V, tokens[part], NOISE, examples[part])

    assert torch.equal(sample(slice(None)), torch.cat([sample(slice(cut)), sample(slice(cut, None))]))


@every_sampler
def test_the_seed_and_the_stream_decide_the_samples(kind):
    """Two sets of 50 x 4 tokens that have nothing in common agree in all of them with chance 1e-60."""

    def sample(noise: CounterRNG) -> Tensor:
        return sampler_of(kind, 4)(Independent(0.2, 0.3, 0.5), Linear(), V, masks(50, L, V), noise, torch.arange(50))

    assert torch.equal(sample(CounterRNG(1, "a")), sample(CounterRNG(1, "a")))
    assert not torch.equal(sample(CounterRNG(1, "a")), sample(CounterRNG(2, "a")))
    assert not torch.equal(sample(CounterRNG(1, "a")), sample(CounterRNG(1, "b")))


@every_sampler
def test_class_labels_are_passed_on_row_by_row(kind):
    """Rows of different classes, some of which have nothing left to draw."""
    classes, start = torch.arange(60) % V, masks(60, L, V)
    start[:20] = classes[:20, None]
    samples = sampler_of(kind, 4)(Labelled(V), Linear(), V, start, NOISE, torch.arange(60), class_labels=classes)
    assert torch.equal(samples, classes[:, None].expand(60, L))


@every_sampler
def test_the_token_sampler_is_used(kind):
    """Of the tokens' probabilities 0.2, 0.3 and 0.5 the largest alone is left."""
    samples = sampler_of(kind, 4)(
        Independent(0.2, 0.3, 0.5),
        Linear(),
        V,
        masks(20, L, V),
        NOISE,
        torch.arange(20),
        token_sampler=TokenSampler(top_k=1),
    )
    assert (samples == 2).all()


@every_sampler
def test_the_denoiser_is_told_times_that_fall_from_one_to_zero(kind):
    denoiser = Mixing(V, SAMPLERS[kind].is_causal)
    sampler_of(kind, 5)(denoiser, Linear(0.2), V, masks(1, L, V), NOISE, torch.arange(1))
    times = torch.cat(denoiser.times)
    assert times.dtype == torch.float64 and ((times >= 0) & (times <= 1)).all()
    assert (times.diff() <= 0).all()


@every_sampler
def test_no_rows_give_no_samples(kind):
    none = torch.zeros(0, L, dtype=torch.int64)
    samples = sampler_of(kind, 4)(Mixing(V, True), Linear(), V, none, NOISE, torch.arange(0))
    assert samples.shape == (0, L)
