from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.params import TrainConfig
from mdpipe.params.diffusion import GenMD4Config
from mdpipe.training.distributed import global_grad_norms
from mdpipe.training.state import TrainingState


def step(state: TrainingState, images: Tensor) -> None:
    state.optimizers[0].zero_grad()
    loss = state.network(images).square().mean() + state.objective.schedule.w.square().mean()
    loss.backward()
    state.optimizers[0].step()
    state.ema.update(state.step)
    state.objective_ema.update(state.step)
    state.history.record(state.step, loss, loss, global_grad_norms(state.parameters))
    state.step += 1


def build(settings: TrainConfig, memory_format: torch.memory_format) -> TrainingState:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    random = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    return TrainingState(network.to(memory_format=memory_format), GenMD4(GenMD4Config(), 3), settings)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_restored_state_goes_on_like_the_one_that_was_saved(
    tiny: SimpleNamespace, memory_format: torch.memory_format
) -> None:
    """Weights of network and objective, buffers, moments, averages and record, in whatever order of memory."""
    images = torch.randn(5, 2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    whole = build(tiny.SETTINGS, memory_format)
    for index in range(3):
        step(whole, images[index])
    saved = whole.to_checkpoint()
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in saved.tensors.items()}
    restored = build(tiny.SETTINGS, memory_format)
    restored.restore(type(saved)(saved.step, tensors))
    for index in (3, 4):
        step(whole, images[index])
        step(restored, images[index])
    expected, found = whole.to_checkpoint(), restored.to_checkpoint()
    assert expected.step == found.step == 5
    assert expected.tensors.keys() == found.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


def test_result_has_the_ema_of_parameters_and_buffers_unchanged(tiny: SimpleNamespace) -> None:
    state = build(tiny.SETTINGS, torch.contiguous_format)
    step(state, torch.ones(2, 3, 6, 6))
    weights, objective_weights = state.ema_state_dicts()
    assert weights.keys() == state.network.state_dict().keys()
    assert torch.equal(weights["0.weight"], state.ema.state_dict()["0.weight"])
    assert not torch.equal(weights["0.weight"], state.network.state_dict()["0.weight"])
    assert torch.equal(weights["1.running_mean"], state.network.state_dict()["1.running_mean"])
    assert objective_weights.keys() == state.objective.state_dict().keys() == {"schedule.raw"}
    assert torch.equal(objective_weights["schedule.raw"], state.objective_ema.state_dict()["schedule.raw"])
    assert not torch.equal(objective_weights["schedule.raw"], state.objective.state_dict()["schedule.raw"])
