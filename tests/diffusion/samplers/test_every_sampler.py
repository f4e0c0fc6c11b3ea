"""Laws of every sampler."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.denoiser import TokenSampler
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.schedules.base import Cosine, Linear, Polynomial
from mdpipe.params.diffusion import CosineConfig, LinearConfig, PolynomialConfig
from mdpipe.params.sampling import SamplerConfig
from tests.diffusion.samplers.denoisers import RNG, Independent, Labeled, Mixing, all_masks, sampler_of

pytestmark = pytest.mark.slow

V, L = 3, 4

CAUSAL = {kind: sampler_of(kind, steps=1).is_causal for kind in SamplerConfig.kinds}
every_sampler = pytest.mark.parametrize("kind", sorted(CAUSAL))
sequences = st.lists(st.lists(st.integers(0, V), min_size=L, max_size=L), min_size=1, max_size=6)
ways = st.sampled_from(
    [
        (Linear(), "cosine"),
        (Cosine(CosineConfig(epsilon=0.2)), "uniform"),
        # alpha(t) rounds to 1 at more times than 0.
        (Polynomial(PolynomialConfig(exponent=100.0, epsilon=0.0)), "uniform"),
    ]
)


def start_for(kind: str, rows: list[list[int]]) -> Tensor:
    """Return the sequences; for a sampler that goes from left to right, all after the first mask is masked."""
    tokens = torch.tensor(rows, dtype=torch.int64).view(-1, L)
    if CAUSAL[kind]:
        tokens = tokens.where((tokens == V).cumsum(dim=1) == 0, V)
    return tokens


@every_sampler
@given(rows=sequences, way=ways, steps=st.integers(1, 5))
def test_masks_are_filled_and_given_tokens_never_change(kind, rows, way, steps):
    """At no step; neither the given tokens nor reported states are modified."""
    schedule, time_grid = way
    tokens = start_for(kind, rows)
    before, trace = tokens.clone(), []
    samples = sampler_of(kind, steps, time_grid)(
        Mixing(V, CAUSAL[kind]),
        schedule,
        V,
        tokens,
        RNG,
        torch.arange(len(tokens)),
        on_step=lambda done, of, state: trace.append((done, of, state, state.clone())),
    )
    assert torch.equal(tokens, before) and samples.data_ptr() != tokens.data_ptr()
    assert samples.dtype == torch.int64 and ((samples >= 0) & (samples < V)).all()
    given_places = tokens != V
    for _, _, x_t, copy in trace:
        assert torch.equal(x_t, copy)
        assert torch.equal(x_t[given_places], tokens[given_places])
    assert [done for done, *_ in trace] == list(range(1, len(trace) + 1))
    assert {of for _, of, *_ in trace} <= {len(trace)}
    assert torch.equal(trace[-1][2] if trace else tokens, samples)


@every_sampler
@given(rows=sequences, first=st.integers(0, 2**40), cut=st.integers(0, 6), way=ways)
def test_a_sample_does_not_depend_on_its_batch(kind, rows, first, cut, way):
    schedule, time_grid = way
    tokens = start_for(kind, rows)
    examples, sampler = first + torch.arange(len(tokens)), sampler_of(kind, 4, time_grid)

    def sample(part: slice) -> Tensor:
        return sampler(Mixing(V, CAUSAL[kind]), schedule, V, tokens[part], RNG, examples[part])

    assert torch.equal(sample(slice(None)), torch.cat([sample(slice(cut)), sample(slice(cut, None))]))


@every_sampler
def test_the_seed_and_the_stream_decide_the_samples(kind):
    """Two sets of 50 x 4 tokens that have nothing in common agree in all of them with chance 1e-60."""

    def sample(rng: CounterRNG) -> Tensor:
        return sampler_of(kind, 4)(Independent(0.2, 0.3, 0.5), Linear(), V, all_masks(50, L, V), rng, torch.arange(50))

    assert torch.equal(sample(CounterRNG(1, "a")), sample(CounterRNG(1, "a")))
    assert not torch.equal(sample(CounterRNG(1, "a")), sample(CounterRNG(2, "a")))
    assert not torch.equal(sample(CounterRNG(1, "a")), sample(CounterRNG(1, "b")))


@every_sampler
def test_class_labels_are_passed_on_row_by_row(kind):
    """Rows of different classes, some of which have no masks."""
    classes, start = torch.arange(60) % V, all_masks(60, L, V)
    start[:20] = classes[:20, None]
    samples = sampler_of(kind, 4)(Labeled(V), Linear(), V, start, RNG, torch.arange(60), class_labels=classes)
    assert torch.equal(samples, classes[:, None].expand(60, L))


@every_sampler
def test_the_token_sampler_is_used(kind):
    """With top-k of 1 only the most probable of three tokens is left."""
    samples = sampler_of(kind, 4)(
        Independent(0.2, 0.3, 0.5),
        Linear(),
        V,
        all_masks(20, L, V),
        RNG,
        torch.arange(20),
        token_sampler=TokenSampler(top_k=1),
    )
    assert (samples == 2).all()


@every_sampler
def test_the_denoiser_gets_times_that_fall_from_one_to_zero(kind):
    denoiser = Mixing(V, CAUSAL[kind])
    sampler_of(kind, 5)(denoiser, Linear(LinearConfig(epsilon=0.2)), V, all_masks(1, L, V), RNG, torch.arange(1))
    times = torch.cat(denoiser.times)
    assert times.dtype == torch.float64 and ((times >= 0) & (times <= 1)).all()
    assert (times.diff() <= 0).all()


@every_sampler
def test_no_rows_give_no_samples(kind):
    none = torch.zeros(0, L, dtype=torch.int64)
    samples = sampler_of(kind, 4)(Mixing(V, True), Linear(), V, none, RNG, torch.arange(0))
    assert samples.shape == (0, L)


@every_sampler
def test_a_sampler_is_built_by_its_kind_and_has_its_defaults(kind):
    sampler = Sampler.build(SamplerConfig.parse(kind))
    assert sampler.config == type(sampler)().config
    assert sampler.config.kind == kind
