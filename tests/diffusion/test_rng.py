"""CounterRNG is Philox4x32-10, keyed by (seed, stream, step, example), and uniform."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.rng import CounterRNG, Words, philox, stratified_times


def words(*values: int) -> Words:
    first, second, third, fourth = (torch.tensor([value]) for value in values)
    return first, second, third, fourth


def test_philox_gives_the_known_answers_of_random123():
    """Vectors of philox4x32 with 10 rounds in Random123's kat_vectors."""
    top = 0xFFFF_FFFF
    known = {
        ((0, 0, 0, 0), (0, 0)): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ((top, top, top, top), (top, top)): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)): (
            0xD16CFE09,
            0x94FDCCEB,
            0x5001E420,
            0x24126EA1,
        ),
    }
    for (counter, key), answer in known.items():
        assert tuple(word.item() for word in philox(words(*counter), key)) == answer


@given(
    examples=st.lists(st.integers(0, 2**62), min_size=1, max_size=8, unique=True),
    cut=st.integers(0, 8),
    step=st.integers(0, 2**32 - 1),
    count=st.integers(0, 9),
)
def test_an_example_has_the_same_noise_in_any_batch(examples, cut, step, count):
    rng, together = CounterRNG(3, "test"), torch.tensor(examples)
    whole = rng.uniform(step, together, count)
    assert whole.shape == (len(examples), count)
    parts = [rng.uniform(step, part, count) for part in (together[:cut], together[cut:])]
    assert torch.equal(whole, torch.cat(parts))


def test_fewer_numbers_are_the_first_of_more():
    rng, examples = CounterRNG(0, "test"), torch.arange(4)
    assert torch.equal(rng.uniform(5, examples, 7), rng.uniform(5, examples, 10)[:, :7])


def test_seed_stream_step_and_example_all_matter():
    examples = torch.arange(2)
    draws = [
        CounterRNG(0, "a").uniform(0, examples, 4),
        CounterRNG(1, "a").uniform(0, examples, 4),
        CounterRNG(0, "b").uniform(0, examples, 4),
        CounterRNG(0, "a").uniform(1, examples, 4),
        CounterRNG(0, "a").uniform(0, examples + 2**40, 4),
    ]
    assert torch.cat(draws).unique().numel() == 5 * 2 * 4


def test_uniforms_are_uniform_independent_and_use_53_bits():
    """Chi-square over 64 bins and over 8 x 8 bins of neighbors; within 5 sigma: false alarm 3e-5 each."""
    u = CounterRNG(0, "test").uniform(0, torch.arange(256), 1024)
    assert u.dtype == torch.float64
    assert u.min() >= 0 and u.max() < 1
    lowest_bits = (u * 2**53).long() % 2
    assert abs(lowest_bits.double().mean() - 0.5) < 5 * 0.5 / u.numel() ** 0.5
    neighbors = (u[:, ::2] * 8).long() * 8 + (u[:, 1::2] * 8).long()
    for bins in ((u * 64).long(), neighbors):
        counts = torch.bincount(bins.flatten(), minlength=64).double()
        expected = bins.numel() / 64
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert abs(statistic - 63) < 5 * (2 * 63) ** 0.5


def test_the_stream_never_changes():
    """A change here changes every result of the pipeline."""
    numbers = CounterRNG(0, "train").uniform(1, torch.tensor([2]), 3)
    assert [number.hex() for number in numbers[0].tolist()] == [
        "0x1.acc45245f9a30p-4",
        "0x1.f36a586b325eap-1",
        "0x1.2d08983ca4678p-3",
    ]


@given(seed=st.integers(0, 100), step=st.integers(0, 1000), batch=st.integers(1, 64))
def test_stratified_times_fall_once_in_every_stratum(seed, step, batch):
    times = stratified_times(CounterRNG(seed, "test"), step, torch.arange(batch), batch)
    assert times.dtype == torch.float64
    assert times.min() >= 0 and times.max() < 1
    gaps = times.sort().values.diff()
    assert torch.allclose(gaps, torch.full_like(gaps, 1 / batch), atol=1e-12)


def test_a_rank_has_its_part_of_the_global_batch_of_times():
    whole = stratified_times(CounterRNG(0, "test"), 3, torch.arange(8), 8)
    assert torch.equal(whole[4:], stratified_times(CounterRNG(0, "test"), 3, torch.arange(4, 8), 8))


@pytest.mark.slow
def test_one_time_is_uniform_over_steps():
    """Mean and variance over 4,096 steps, within five standard errors."""
    times = torch.cat([stratified_times(CounterRNG(0, "test"), step, torch.tensor([5]), 8) for step in range(4096)])
    assert abs(times.mean() - 1 / 2) < 5 * (1 / 12 / 4096) ** 0.5
    assert abs(times.var() - 1 / 12) < 5 * (1 / 180 / 4096) ** 0.5


def test_a_child_shares_no_number_with_its_parent():
    rng, examples = CounterRNG(0, "test"), torch.arange(4)
    assert not torch.isin(rng.child("times").uniform(0, examples, 64), rng.uniform(0, examples, 64)).any()
