"""What holds for the U-Net alone."""

import pytest
import torch

from mdpipe.networks.build import build_network


def test_hidden_states_are_in_the_order_of_the_tokens(build, tokens, times):
    """Row, column, channel: sub-pixel i belongs to channel i mod C, whose output channels are the c-th V of C x V."""
    network = build("unet")
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.arange(10.0))
        hidden = network(tokens, times).view(6, 3, 2, 2, 5)
    assert torch.equal(hidden[..., 0, :], torch.arange(5.0).expand(6, 3, 2, 5))
    assert torch.equal(hidden[..., 1, :], torch.arange(5.0, 10.0).expand(6, 3, 2, 5))


def test_pixels_lie_where_the_tokens_say(build, times):
    """The first convolution sees the token of row 2, column 1, channel 0 there and nowhere else."""
    network = build("unet")
    seen = []
    network.input.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens = torch.zeros(1, 12, dtype=torch.int64)
    network(tokens, times[:1])
    tokens[0, (2 * 2 + 1) * 2 + 0] = 3
    network(tokens, times[:1])
    changed = (seen[1] - seen[0])[0].unflatten(0, (2, 8)).abs().sum(dim=1)
    assert changed.nonzero().tolist() == [[0, 2, 1]]


def test_every_block_up_also_sees_its_opposite_on_the_way_down(shaken, tokens, times):
    """The first one up what the last one down gave, and so on; the last one up what the first one down was given."""
    network, down, up = shaken("unet", blocks=2), [], []
    for layer in (network.input, *network.down):
        layer.register_forward_hook(lambda _, inputs, output: down.append(output))
    for block in network.up:
        block.register_forward_pre_hook(lambda _, inputs: up.append(inputs[0][:, 8:]))
    network(tokens, times)
    assert len(down) == len(up) == 3
    assert all(torch.equal(given, seen) for given, seen in zip(down, reversed(up), strict=True))


@pytest.mark.parametrize(("kind", "sizes"), [("unet", {}), ("uvit", {"middle_width": 16, "layers": 1, "heads": 2})])
def test_with_ordinal_weights_near_values_start_near_each_other(kind, sizes):
    settings = {"seed": 0, "width": 32, "blocks": 1, "time_conditioning": True, "dropout": 0.0, **sizes}
    official, ordinal = (build_network(kind, 256, (2, 2, 3), init=init, **settings) for init in ("md4", "ordinal"))
    zeros = [name for name in official.state_dict() if kind == "unet" and name.startswith("attention.output")]
    assert not any(ordinal.state_dict()[name].any() for name in zeros)
    rest = [name for name in official.state_dict() if name not in ["embedding.weight", *zeros]]
    assert all(torch.equal(official.state_dict()[name], ordinal.state_dict()[name]) for name in rest)
    embedding = ordinal.embedding.weight.detach()
    assert not embedding[256].any(), "the mask starts at 0"
    distances = torch.cdist(embedding, embedding)
    assert distances[:255, 1:256].diagonal().max() < 0.5 * distances[0, 64]
    assert distances[0, 8] < distances[0, 64] < distances[0, 255]
    assert distances[256, :256].min() > 1
    with pytest.raises(ValueError, match=r"network.init is 'zeros'; it must be one of md4, ordinal"):
        build_network(kind, 256, (2, 2, 3), init="zeros", **settings)


def test_it_cannot_be_causal(build):
    with pytest.raises(ValueError, match=r"network.kind = unet .* cannot be causal; take a transformer"):
        build("unet", causal=True)


def test_shapes_that_are_no_picture_are_refused():
    settings = {"seed": 0, "width": 8, "blocks": 1, "time_conditioning": False, "dropout": 0.0}
    with pytest.raises(ValueError, match=r"\(height, width, channels\), not \(64,\)"):
        build_network("unet", 5, (64,), **settings)
    with pytest.raises(ValueError, match=r"network.width = 6 must be a multiple of 4"):
        build_network("unet", 5, (8, 8, 1), **{**settings, "width": 6})
