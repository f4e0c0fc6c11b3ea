"""The loss at masked positions: chunks change nothing, and a GPU never waits for the number of masks."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives import md4
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.schedules.base import Linear
from tests.diffusion.all_kinds import every_objective

V, L, B = 7, 6, 5
KINDS = sorted(every_objective(V, Linear()))


class Small(nn.Module):
    """A denoiser in float64 that records the number of logits of each call of its head."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(V + 1, 4, generator=random, dtype=torch.float64))
        self.weight = nn.Parameter(torch.randn(V, 4, generator=random, dtype=torch.float64))
        self.logit_counts: list[int] = []

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        return self.embedding[tokens].cumsum(dim=1) + time[:, None, None]

    def head(self, hidden: Tensor) -> Tensor:
        self.logit_counts.append(hidden.shape[:-1].numel() * V)
        return hidden @ self.weight.T


def gradients(objective: Objective, network: Small) -> tuple[Tensor, list[Tensor]]:
    """Losses, and the gradient of a sum that weighs each example differently."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(V, (B, L), generator=random)
    time = torch.rand(B, generator=random, dtype=torch.float64)
    u = torch.rand(B, objective.num_mask_samples * L, generator=random, dtype=torch.float64)
    losses = objective.loss(network, tokens, time, u)
    weights = torch.arange(1.0, B + 1, dtype=torch.float64)
    parameters = [*network.parameters(), *objective.parameters()]
    return losses.detach(), list(torch.autograd.grad((weights * losses).sum(), parameters))


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_keep_losses_and_gradients_and_bound_the_logits(kind, monkeypatch):
    objective, network = every_objective(V, Linear())[kind].double(), Small()
    losses, expected = gradients(objective, network)
    whole = max(network.logit_counts)
    network.logit_counts.clear()
    limit = 3 * V
    monkeypatch.setattr(md4, "CHUNK_BYTES", limit * torch.float32.itemsize)
    chunked, found = gradients(objective, network)
    assert max(network.logit_counts) <= limit < whole
    torch.testing.assert_close(chunked, losses, rtol=1e-12, atol=1e-12)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


def test_chunks_follow_the_memory_of_a_gpu(monkeypatch):
    def chunk_bytes(gibibytes):
        properties = SimpleNamespace(total_memory=gibibytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        return md4.max_chunk_bytes(torch.device("cuda"))

    assert [chunk_bytes(size) / 2**20 for size in (2, 24, 80)] == [64, 384, 1280]
    assert md4.max_chunk_bytes(torch.device("cpu")) == 2**26


WITH_MASKS = sorted(every_objective(V, Linear()).keys() - {"autoregressive"})
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_async_item_is_the_scalar_when_the_copy_started(device):
    number = torch.tensor(41, device=device) + 1
    read = md4.async_item(number)
    assert read() == 42
    assert read() == 42


@pytest.mark.parametrize("kind", WITH_MASKS)
def test_the_mask_count_is_copied_during_the_forward_pass(kind, monkeypatch):
    objective, happened = every_objective(V, Linear())[kind], []

    original = md4.async_item

    def record_copy(scalar: Tensor):
        happened.append("copy")
        read = original(scalar)

        def record_read() -> int:
            happened.append("read")
            return read()

        return record_read

    class Denoiser:
        def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
            happened.append("run")
            return torch.nn.functional.one_hot(tokens, V + 1)[..., :V].to(torch.float64)

        def head(self, hidden: Tensor) -> Tensor:
            happened.append("head")
            return hidden

    monkeypatch.setattr(md4, "async_item", record_copy)
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(V, (B, L), generator=random)
    time = torch.rand(B, generator=random, dtype=torch.float64)
    u = torch.rand(B, objective.num_mask_samples * L, generator=random, dtype=torch.float64)
    objective.loss(Denoiser(), tokens, time, u)
    draws = len(happened) // 4
    assert draws >= 1
    assert happened == ["copy", "run", "read", "head"] * draws
