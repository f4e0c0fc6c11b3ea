import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from mdpipe.diffusion.objectives.baselines import AnyOrder
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params import AdamWConfig, MuonConfig, NorMuonConfig, TrainConfig
from mdpipe.params.diffusion import AnyOrderConfig, GenMD4Config
from mdpipe.params.networks import TransformerConfig, UNetConfig
from mdpipe.training.distributed import global_grad_norms
from mdpipe.training.optimizer import build_optimizers, clip_gradient, learning_rate_at, set_learning_rate


def settings(**changes: Any) -> TrainConfig:
    values = {
        "steps": 100,
        "batch_size": 1,
        "learning_rate": 0.5,
        "warmup_steps": 10,
        "optimizer": AdamWConfig(beta2=0.95, weight_decay=0.1),
    }
    return TrainConfig(**values | changes)


@given(steps=st.integers(1, 500), data=st.data())
def test_learning_rate_rises_to_its_peak_and_falls_to_zero(steps: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, steps - 1))
    chosen = settings(steps=steps, warmup_steps=warmup)
    rates = [learning_rate_at(step, chosen) for step in range(steps + 1)]
    assert all(rate > 0 for rate in rates[:-1])
    assert rates[:warmup] == pytest.approx([0.5 * (step + 1) / warmup for step in range(warmup)])
    assert rates[warmup] == 0.5
    assert all(later < earlier for earlier, later in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_the_decay_is_half_way_down_half_way_through() -> None:
    assert learning_rate_at(55, settings()) == pytest.approx(0.25)


def test_steps_follow_adamw_with_the_decay_on_every_parameter() -> None:
    """Loshchilov and Hutter's Algorithm 2 in float64, on a matrix and a vector."""
    chosen = settings()
    random = np.random.default_rng(0)
    values = [random.normal(size=shape) for shape in ((3, 2), (4,))]
    parameters = nn.ParameterList(torch.tensor(value, dtype=torch.float64) for value in values)
    (optimizer,) = build_optimizers(parameters, AnyOrder(AnyOrderConfig(), 3), chosen)
    first, second = ([np.zeros_like(value) for value in values] for _ in range(2))
    for step in range(1, 6):
        rate = learning_rate_at(step, chosen)
        set_learning_rate([optimizer], rate)
        for index, parameter in enumerate(parameters):
            gradient = random.normal(size=values[index].shape)
            parameter.grad = torch.tensor(gradient)
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.95 * second[index] + 0.05 * gradient**2
            update = (first[index] / (1 - 0.9**step)) / (np.sqrt(second[index] / (1 - 0.95**step)) + 1e-8)
            values[index] = values[index] - rate * (update + 0.1 * values[index])
        optimizer.step()
        for parameter, value in zip(parameters, values, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-12)


def test_cautious_decay_spares_entries_that_move_away_from_0() -> None:
    """Algorithm 1 of arXiv:2510.12402 with AdamW, in float64; the objective's parameters do not decay."""
    chosen = settings(optimizer=AdamWConfig(beta2=0.95, weight_decay=0.5, cautious_weight_decay=True))
    random = np.random.default_rng(0)
    objective = GenMD4(GenMD4Config(), 20).double()
    network = nn.ParameterList([torch.tensor(random.normal(size=(20,)))])
    (optimizer,) = build_optimizers(network, objective, chosen)
    parameters = [network[0], objective.schedule.raw]
    values = [parameter.detach().numpy().copy() for parameter in parameters]
    first, second = ([np.zeros(20), np.zeros(20)] for _ in range(2))
    num_decayed = 0
    for step in range(1, 6):
        set_learning_rate([optimizer], 0.1)
        for index, (parameter, decay) in enumerate(zip(parameters, (0.5, 0), strict=True)):
            gradient = random.normal(size=20)
            parameter.grad = torch.tensor(gradient)
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.95 * second[index] + 0.05 * gradient**2
            update = (first[index] / (1 - 0.9**step)) / (np.sqrt(second[index] / (1 - 0.95**step)) + 1e-8)
            is_decayed = update * values[index] >= 0
            num_decayed += is_decayed.sum()
            values[index] = values[index] - 0.1 * (update + decay * is_decayed * values[index])
        optimizer.step()
        for parameter, value in zip(parameters, values, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-12)
    assert 0 < num_decayed < 200


@pytest.mark.parametrize("kind", [MuonConfig, NorMuonConfig])
def test_muon_has_its_own_learning_rate_on_the_same_schedule(kind: type[MuonConfig | NorMuonConfig]) -> None:
    """Each step's root mean square is 0.2 times the rate: exactly with NorMuon, nearly so with Muon."""
    network = build_network(NetworkSpec(TransformerConfig(num_layers=1, num_heads=2, hidden_size=32), 5, (4,)), seed=0)
    objective = AnyOrder(AnyOrderConfig(), 5)
    chosen = settings(learning_rate=0.1, optimizer=kind(weight_decay=0.0, learning_rate=0.025))
    optimizers = build_optimizers(network, objective, chosen)
    set_learning_rate(optimizers, learning_rate_at(3, chosen))
    assert [group["lr"] for optimizer in optimizers for group in optimizer.param_groups] == [0.04, 0.04, 0.01]
    weight = network.attention[0].inner.out_proj.weight
    before = weight.detach().clone()
    weight.grad = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    optimizers[1].step()
    step = (weight.detach() - before).square().mean().sqrt().item()
    assert step == pytest.approx(0.2 * 0.01, rel=1e-4 if kind is NorMuonConfig else 0.2)


@pytest.mark.parametrize(("shape", "half_way"), [("linear", 0.25), ("1-sqrt", 0.5 * (1 - 0.5**0.5))])
def test_warmup_stable_decay_follows_its_formula(shape: str, half_way: float) -> None:
    """10 steps up, the peak up to and including step 60, then 40 steps down to 0."""
    chosen = settings(lr_schedule={"kind": "warmup_stable_decay", "decay_fraction": 0.4, "shape": shape})
    rates = [learning_rate_at(step, chosen) for step in range(101)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert rates[10:61] == [0.5] * 51
    assert rates[80] == pytest.approx(half_way)
    assert rates[100] == 0
    assert all(later < earlier for earlier, later in pairwise(rates[60:]))


def test_warm_up_that_ends_after_the_decay_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"warmup_steps\n *must be at most 90, the step at which lr_schedule"):
        settings(warmup_steps=91, lr_schedule={"kind": "warmup_stable_decay", "decay_fraction": 0.1})


def test_muon_has_the_matrices_of_the_layers_and_adamw_all_else() -> None:
    """Its first step is the learning rate times an orthogonal matrix, scaled to the size that AdamW's would have."""
    chosen = settings(optimizer=MuonConfig(momentum=0.9, beta2=0.95, weight_decay=0.0))
    config = TransformerConfig(num_layers=2, num_heads=2, hidden_size=32, time_conditioning=True)
    network = build_network(NetworkSpec(config, 5, (4,)), seed=0)
    adamw, muon = build_optimizers(network, AnyOrder(AnyOrderConfig(), 5), chosen)
    of_muon = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    of_adamw = {id(parameter) for group in adamw.param_groups for parameter in group["params"]}
    assert not of_muon & of_adamw
    names = {name for name, parameter in network.named_parameters() if id(parameter) in of_muon}
    assert {name for name, _ in network.named_parameters() if ".inner." in name} == names
    assert len(of_muon) + len(of_adamw) == len(list(network.parameters()))
    weight = network.attention[0].inner.out_proj.weight
    before = weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    set_learning_rate([adamw, muon], 0.1)
    muon.step()
    step = (before - weight.detach()) / (0.1 * 0.2 * 32**0.5)
    singular = torch.linalg.svdvals(step.double())
    assert (singular > 0.5).all()
    assert (singular < 1.5).all()


def test_muon_has_the_convolutions_of_the_blocks_of_a_unet() -> None:
    chosen = settings(optimizer=MuonConfig(momentum=0.9, beta2=0.95, weight_decay=0.0))
    network = build_network(NetworkSpec(UNetConfig(hidden_size=16, num_blocks=1), 5, (4, 4, 1)), seed=0)
    _, muon = build_optimizers(network, AnyOrder(AnyOrderConfig(), 5), chosen)
    of_muon = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in of_muon}
    blocks = [f"down.0.{name}" for name in ("conv1", "conv2")]
    blocks += [f"middle.{at}.{name}" for at in (0, 1) for name in ("conv1", "conv2")]
    blocks += [f"up.{at}.{name}" for at in (0, 1) for name in ("conv1", "conv2", "shortcut")]
    assert names == {f"{name}.weight" for name in blocks}


def test_muon_without_a_matrix_to_move_is_refused() -> None:
    chosen = settings(optimizer=MuonConfig(momentum=0.9, beta2=0.95, weight_decay=0.0))
    with pytest.raises(ValueError, match="needs a network with matrices or convolutions in its layers"):
        build_optimizers(nn.Linear(3, 3), AnyOrder(AnyOrderConfig(), 3), chosen)


@pytest.mark.parametrize("own_rate", [None, 0.05])
def test_objective_has_its_own_learning_rate_and_no_weight_decay(own_rate: float | None) -> None:
    """The first step of AdamW moves every parameter by the learning rate, against its gradient."""
    chosen = settings()
    network = nn.Linear(1, 1, bias=False)
    objective = GenMD4(GenMD4Config(exponent_learning_rate=own_rate), 2)
    (optimizer,) = build_optimizers(network, objective, chosen)
    set_learning_rate([optimizer], learning_rate_at(3, chosen))
    before = objective.schedule.raw.detach().clone()
    for parameter in (network.weight, objective.schedule.raw):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = 0.4 * (own_rate or chosen.learning_rate)
    torch.testing.assert_close(objective.schedule.raw.detach(), before - moved)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0]


@given(largest=st.none() | st.floats(0.01, 100))
def test_clipping_keeps_the_direction_and_bounds_the_norm(largest: float | None) -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([12.0])]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    norms = global_grad_norms([*parameters, nn.Parameter(torch.zeros(3))])
    assert norms.tolist() == pytest.approx([5, 12, 0])
    clip_gradient(parameters, norms.norm(), largest)
    factor = 1 if largest is None else min(1, largest / 13)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * factor, rtol=1e-5, atol=1e-6)


def test_without_a_warm_up_it_starts_at_the_peak() -> None:
    chosen = settings(warmup_steps=0, steps=2)
    assert [learning_rate_at(step, chosen) for step in range(2)] == pytest.approx(
        [0.5, 0.25 * (1 + math.cos(math.pi / 2))]
    )
