from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mdpipe.reporting.axes import MOST_TICKS, doubling_ticks, round_ticks


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-3, 1e4))
def test_round_ticks_are_inside_evenly_apart_and_neither_too_many_nor_too_few(low, span):
    ticks = round_ticks(low, low + span)
    assert all(low - 1e-9 <= tick <= low + span + 1e-9 for tick in ticks)
    assert 2 <= len(ticks) <= MOST_TICKS + 1
    gaps = [after - before for before, after in pairwise(ticks)]
    assert max(gaps) - min(gaps) < 1e-6 * max(1, abs(low) + span)


@given(low=st.floats(0.51, 1e5), factor=st.floats(2, 1e6))
def test_doubling_ticks_are_powers_of_two_inside_and_the_same_factor_apart(low, factor):
    ticks = doubling_ticks(low, low * factor)
    assert 1 <= len(ticks) <= MOST_TICKS
    assert all(low * (1 - 1e-9) <= tick <= low * factor * (1 + 1e-9) for tick in ticks)
    assert all(tick.bit_count() == 1 for tick in ticks)
    assert len({after / before for before, after in pairwise(ticks)}) <= 1


def test_ticks_as_a_reader_knows_them():
    assert round_ticks(0, 900) == [0, 200, 400, 600, 800]
    assert round_ticks(2.31, 2.62) == [2.4, 2.5, 2.6]
    assert doubling_ticks(6, 180) == [8, 16, 32, 64, 128]
    assert doubling_ticks(1, 4096) == [1, 8, 64, 512, 4096]
