"""Laws of the U-Net, and of the initial weights that it shares with the U-ViT."""

import pytest
import torch
from pydantic import ValidationError

from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params.networks import UNetConfig
from tests.networks.conftest import SMALL


def test_hidden_states_are_in_the_order_of_the_tokens(build, tokens, times):
    """Row, column, channel: the logits of channel c are output channels c V to (c + 1) V."""
    network = build("unet")
    with torch.no_grad():
        network.conv_out.weight.zero_()
        network.conv_out.bias.copy_(torch.arange(10.0))
        hidden = network(tokens, times).view(6, 3, 2, 2, 5)
    assert torch.equal(hidden[..., 0, :], torch.arange(5.0).expand(6, 3, 2, 5))
    assert torch.equal(hidden[..., 1, :], torch.arange(5.0, 10.0).expand(6, 3, 2, 5))


def test_feature_map_has_the_layout_of_the_tokens(build, times):
    """The token of row 2, column 1, channel 0 changes only that place of the first convolution's input."""
    network = build("unet")
    inputs = []
    network.conv_in.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    tokens = torch.zeros(1, 12, dtype=torch.int64)
    network(tokens, times[:1])
    tokens[0, (2 * 2 + 1) * 2 + 0] = 3
    network(tokens, times[:1])
    changed = (inputs[1] - inputs[0])[0].unflatten(0, (2, 8)).abs().sum(dim=1)
    assert changed.nonzero().tolist() == [[0, 2, 1]]


def test_every_up_block_has_its_skip_connection(perturbed, tokens, times):
    """The first up block gets the last down block's output, ..., the last up block the first down block's input."""
    network, down, up = perturbed("unet", num_blocks=2), [], []
    for layer in (network.conv_in, *network.down):
        layer.register_forward_hook(lambda _, inputs, output: down.append(output))
    for block in network.up:
        block.register_forward_pre_hook(lambda _, inputs: up.append(inputs[0][:, 8:]))
    network(tokens, times)
    assert len(down) == len(up) == 3
    assert all(torch.equal(output, skip) for output, skip in zip(down, reversed(up), strict=True))


@pytest.mark.parametrize("kind", ["unet", "uvit"])
def test_ordinal_init_embeds_near_values_near_each_other(kind):
    config = SMALL[kind][0].model_copy(update={"hidden_size": 32, "time_conditioning": True})
    official, ordinal = (
        build_network(NetworkSpec(config.model_copy(update={"init": init}), 256, (2, 2, 3)), seed=0)
        for init in ("md4", "ordinal")
    )
    zeros = [name for name in official.state_dict() if kind == "unet" and name.startswith("attention.out_proj")]
    assert not any(ordinal.state_dict()[name].any() for name in zeros)
    others = [name for name in official.state_dict() if name not in ["embedding.weight", *zeros]]
    assert all(torch.equal(official.state_dict()[name], ordinal.state_dict()[name]) for name in others)
    embedding = ordinal.embedding.weight.detach()
    assert not embedding[256].any(), "the mask is initially 0"
    distances = torch.cdist(embedding, embedding)
    assert distances[:255, 1:256].diagonal().max() < 0.5 * distances[0, 64]
    assert distances[0, 8] < distances[0, 64] < distances[0, 255]
    assert distances[256, :256].min() > 1


def test_causal_unet_is_an_error(build):
    with pytest.raises(ValueError, match=r"network.kind = unet .* cannot be causal"):
        build("unet", causal=True)


def test_unet_shape_and_width_are_checked(build):
    with pytest.raises(ValueError, match=r"\(height, width, channels\), not \(64,\)"):
        build("unet", shape=(64,))
    with pytest.raises(ValidationError, match=r"hidden_size\n *.* multiple of 4"):
        UNetConfig(hidden_size=6, num_blocks=1)
