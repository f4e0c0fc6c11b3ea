"""Compiled or recomputed, a run is the same to float tolerance, and says so where no compiler works."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.networks.unet import ResidualBlock
from mdpipe.params import HardwareConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.training import performance
from mdpipe.training.loop import TrainResult
from mdpipe.training.performance import apply_compile_and_checkpointing
from tests.diffusion.all_kinds import every_objective

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("compile", [False, True])
def test_a_run_is_the_same_however_its_network_is_run(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], tmp_path: Path, compile: bool
) -> None:
    result = tiny.tiny_run(tmp_path, hardware=HardwareConfig(activation_checkpointing=True, compile=compile))
    expected = uninterrupted[1]
    found, wanted = ([row.loss for row in run.history] for run in (result, expected))
    assert found == pytest.approx(wanted, abs=1e-5)
    assert result.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        torch.testing.assert_close(result.weights[name], weight, rtol=0, atol=1e-3, msg=name)


def test_activation_checkpointing_saves_memory_exactly() -> None:
    def run(checkpointing: bool) -> tuple[int, dict[str, torch.Tensor]]:
        config = TransformerConfig(num_layers=4, num_heads=2, hidden_size=16, time_conditioning=True)
        network = build_network(NetworkSpec(config, 5, (32,)), seed=0)
        hardware = HardwareConfig(activation_checkpointing=checkpointing)
        apply_compile_and_checkpointing(network, MD4(MD4Config(), 5), hardware)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1)
        kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            hidden = network(torch.arange(32)[None] % 5, torch.ones(1))
        hidden.square().sum().backward()
        gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        return kept, gradients

    plain, expected = run(checkpointing=False)
    less, found = run(checkpointing=True)
    assert less < plain / 3
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (RuntimeError("g++ was not found\nand more"), "g++ was not found"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_without_a_compiler_a_line_says_so_and_the_network_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, problem: str
) -> None:
    def broken(*_: object, **__: object) -> Callable[..., None]:
        raise error

    monkeypatch.setattr(performance.torch, "compile", broken)
    network = build_network(NetworkSpec(TransformerConfig(num_layers=1, num_heads=1, hidden_size=8), 5, (4,)), seed=0)
    apply_compile_and_checkpointing(network, MD4(MD4Config(), 5), HardwareConfig(compile=True))
    assert caplog.messages == [f"hardware.compile is ignored, because no compiler works here: {problem}"]
    assert network(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1)).shape == (1, 4, 8)


def test_compiled_code_is_reused_only_with_equal_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for vectors of AVX-512 computes wrong numbers where a process runs it with those of AVX2."""

    def count_reused() -> int:
        torch.compiler.reset()
        counters.clear()
        torch.manual_seed(0)
        objective = MD4(MD4Config(), 5)
        network = build_network(
            NetworkSpec(TransformerConfig(num_layers=1, num_heads=1, hidden_size=8), 5, (4,)), seed=0
        )
        apply_compile_and_checkpointing(network, objective, HardwareConfig(compile=True))
        return counters["inductor"]["fxgraph_cache_hit"]

    count_reused()
    assert count_reused() == 1
    another = str(uuid4())  # The cache is kept from one run of the tests to the next.
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: another)
    assert count_reused() == 0


def test_compiled_bfloat16_blocks_at_most_double_the_error() -> None:
    """Their convolutions round more often; that they and the norms are right is a test of tests/networks."""

    def run(compiled: bool, precision: torch.dtype) -> Tensor:
        torch.manual_seed(0)
        network = nn.Module()
        network.blocks = nn.ModuleList(ResidualBlock(16, 16, cond_dim=16, dropout=0.0) for _ in range(2))
        x, cond, back = torch.randn(4, 16, 8, 5), torch.randn(4, 16), torch.randn(4, 16, 8, 5)
        apply_compile_and_checkpointing(network, MD4(MD4Config(), 5), HardwareConfig(compile=compiled))
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            first, second = network.blocks
            y = second(first(x, cond, None), cond, None)
        gradients = torch.autograd.grad(y, [x, *network.parameters()], back.to(y.dtype))
        return torch.cat([y.detach().flatten(), *(gradient.flatten() for gradient in gradients)])

    exact = run(compiled=False, precision=torch.float32)
    plain, quick = ((run(compiled, torch.bfloat16) - exact).norm() for compiled in (False, True))
    assert 0 < plain < quick < 2 * plain < 0.1 * exact.norm()


class Bigrams(nn.Module):
    """Logits by a token and the one before it."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(vocabulary + 1, vocabulary, generator=random))
        self.head = nn.Identity()

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        embedded: Tensor = self.table[tokens]
        return embedded.cumsum(dim=1) * (1 + time.float()[:, None, None])


@pytest.mark.parametrize("kind", ["genmd4", "genmd4 in steps", "sedd"])
def test_compiled_token_losses_match_eager_at_any_size(kind: str) -> None:
    vocabulary, length = 6, 5

    def run(compiled: bool) -> list[Tensor]:
        network, objective = Bigrams(vocabulary), every_objective(vocabulary, Linear())[kind]
        apply_compile_and_checkpointing(network, objective, HardwareConfig(compile=compiled))
        found = []
        for batch in (3, 4, 1):
            random = torch.Generator().manual_seed(batch)
            tokens = torch.randint(vocabulary, (batch, length), generator=random)
            time = 0.5 + torch.rand(batch, generator=random, dtype=torch.float64) / 2
            u = torch.rand(batch, objective.num_mask_samples * length, generator=random, dtype=torch.float64)
            losses = objective.loss(network, tokens, time, u)
            weights = [*network.parameters(), *objective.parameters()]
            found += [losses.detach(), *torch.autograd.grad(losses.sum(), weights)]
        return found

    for compiled, plain in zip(run(compiled=True), run(compiled=False), strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
