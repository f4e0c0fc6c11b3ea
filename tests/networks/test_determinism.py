from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor

from mdpipe.networks.determinism import make_deterministic

SIZE = 512
"""Of a square matrix that torch divides among threads."""


def shares_of_denormals(deterministic: bool) -> dict[str, float]:
    """What share of the results is denormal where all would be, on two threads."""
    torch.set_num_threads(2)
    if deterministic:
        make_deterministic(threads=2)
    # By its bits: a conversion from a Python float would already be flushed.
    denormal = torch.full((SIZE, SIZE), 1 << 20, dtype=torch.int32).view(torch.float32)
    normal = torch.eye(SIZE)
    scores = torch.full((SIZE, SIZE), -95.0)
    scores[:, 0] = 0
    weight = denormal.clone().requires_grad_()
    (weight * 1.0).backward(denormal)
    assert weight.grad is not None
    return {
        "elementwise": denormal_share(denormal * 1.0),
        "a matrix product": denormal_share(normal @ denormal),
        "softmax": denormal_share(scores.softmax(dim=-1)[:, 1:]),
        "a gradient": denormal_share(weight.grad),
    }


def denormal_share(tensor: Tensor) -> float:
    bits = tensor.contiguous().view(torch.int32)
    return float(((bits != 0) & (bits < 1 << 23)).float().mean())


@pytest.mark.parametrize("deterministic", [True, False])
def test_denormal_numbers_become_zero_on_every_thread(deterministic: bool) -> None:
    """In a process of its own, where no thread has started yet."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such switch")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        shares = process.submit(shares_of_denormals, deterministic).result()
    assert shares == dict.fromkeys(shares, 0.0 if deterministic else 1.0)
