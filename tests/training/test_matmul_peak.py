"""The peak is that of the largest product that is worth its time, and says where bfloat16 is slow."""

import pytest
import torch

from mdpipe.training import performance
from mdpipe.training.performance import NUM_TIMED, find_bfloat16_problem, measure_peak_flops, time_matmul

CPU = torch.device("cpu")
OVERHEAD = 1e-5
"""Seconds of a product of the smallest matrices, about."""
RATES = {"emulated": 5e8, "a laptop": 5e10, "a server": 5e12, "a GPU": 1e15}


@pytest.fixture
def machine(monkeypatch):
    """Replace the clock by a machine with these FLOP/s in each type; return the seconds that it has spent."""
    spent = []

    def install(rates):
        def seconds(edge, device, dtype):
            taken = OVERHEAD + 2 * edge**3 / rates[dtype]
            spent.append((1 + NUM_TIMED) * taken)
            return taken

        monkeypatch.setattr(performance, "time_matmul", seconds)
        return spent

    return install


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_a_peak_is_right_and_quick_on_every_machine(machine, rate):
    spent = machine({torch.float32: rate})
    assert measure_peak_flops(CPU, torch.float32) == pytest.approx(rate, rel=0.02)
    assert sum(spent) < 0.5


def test_a_peak_is_that_of_some_product_on_this_machine():
    """And at least a tenth of the rate of a small one."""
    small = 2 * 128**3 / time_matmul(128, CPU, torch.float32)
    assert small / 10 < measure_peak_flops(CPU, torch.float32) < 1e15


def test_bfloat16_is_a_problem_only_where_it_is_slower(machine):
    machine({torch.float32: 5e10, torch.bfloat16: 1e11})
    assert find_bfloat16_problem(CPU) == ""
    machine({torch.float32: 5e10, torch.bfloat16: 5e8})
    assert "0.5 GFLOP/s in bfloat16 and 50 in float32" in find_bfloat16_problem(CPU)
