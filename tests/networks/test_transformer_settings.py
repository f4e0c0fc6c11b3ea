"""The transformer's settings beyond the paper: what each adds, and that none changes the paper's network."""

import hashlib

import pytest
import torch
from pydantic import ValidationError

from mdpipe.networks.base import NetworkSpec, build_network, count_parameters
from mdpipe.networks.layers import QKNorm
from mdpipe.networks.transformer import Attention, ReLUSquaredMLP, Transformer
from mdpipe.params.networks import TransformerConfig

V, L, D, HEADS, LAYERS = 5, 12, 16, 2, 4
EVERY = {"qk_norm": True, "zero_init": True, "mlp": "relu_squared", "value_embeddings": 2, "unet_skips": True}


def build(*, time_conditioning: bool = False, causal: bool = False, **settings) -> Transformer:
    config = TransformerConfig(
        num_layers=LAYERS, num_heads=HEADS, hidden_size=D, time_conditioning=time_conditioning, **settings
    )
    return build_network(NetworkSpec(config, V, (L,), causal=causal), seed=0)


def tokens() -> torch.Tensor:
    return torch.randint(V + 1, (6, L), generator=torch.Generator().manual_seed(0))


TIMES = torch.linspace(0, 1, 6)


def test_without_settings_the_initial_weights_keep_their_bytes():
    """Their hash before the settings were added."""
    state = build(time_conditioning=True).state_dict()
    digest = hashlib.sha256(b"".join(name.encode() + state[name].numpy().tobytes() for name in sorted(state)))
    assert digest.hexdigest() == "96bcb96151157bc5aa779266110be1d240a82695cb40e92f0d3a28f34b4528f5"


@pytest.mark.parametrize(
    ("setting", "added"),
    [
        ({"qk_norm": True}, LAYERS * 2 * (D // HEADS)),
        ({"zero_init": True}, 0),
        ({"mlp": "relu_squared"}, LAYERS * (2 * D * 4 * D - 3 * D * 64)),
        ({"value_embeddings": 2}, 2 * (V + 1) * D),
        ({"unet_skips": True}, 1),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_adds_its_weights_and_draws_no_others(setting, added):
    """The gated MLP is 64 wide: 8/3 of 16, rounded up to a multiple of 32."""
    plain, changed = build(), build(**setting)
    assert count_parameters(changed) - count_parameters(plain) == added
    if setting != {"mlp": "relu_squared"}:  # It has matrices of other shapes.
        weights = plain.state_dict()
        same = [name for name, weight in changed.state_dict().items() if torch.equal(weight, weights.get(name, weight))]
        others = changed.state_dict().keys() - same
        assert all(name.endswith(("out_proj.weight", "down_proj.weight")) for name in others)
        assert bool(others) == (setting == {"zero_init": True})


@pytest.mark.parametrize("setting", [{"value_embeddings": 2}, {"zero_init": True}], ids=str)
def test_the_initial_network_is_known(setting):
    """Value embeddings start as the paper's network; branches of zeros leave the normalized embedding."""
    network = build(**setting)
    expected = build()(tokens(), TIMES)
    if "zero_init" in setting:
        expected = torch.nn.functional.rms_norm(network.embedding(tokens()), (D,), eps=1e-5)
    torch.testing.assert_close(network(tokens(), TIMES), expected, rtol=0, atol=0)


def test_conditioned_branches_keep_their_projections():
    """Their gates are 0; with projections of 0 too, neither would have a gradient."""
    plain, zeros = (build(time_conditioning=True, zero_init=value).state_dict() for value in (False, True))
    assert all(torch.equal(plain[name], zeros[name]) for name in plain)


def test_normalized_queries_and_keys_ignore_scales():
    norm = QKNorm(8)
    query, key = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    for factor in (1, 1000):
        normalized = norm(factor * query, key)[0]
        torch.testing.assert_close(normalized.square().mean(dim=-1), torch.ones(3, 5), rtol=1e-4, atol=0)


def test_squared_relu_mlp_follows_its_formula():
    network = build(mlp="relu_squared")
    mlp = network.mlp[0].inner
    assert isinstance(mlp, ReLUSquaredMLP)
    x = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    expected = (x @ mlp.up_proj.weight.T).clamp(min=0) ** 2 @ mlp.down_proj.weight.T
    torch.testing.assert_close(mlp(x), expected)


def test_each_value_embedding_reaches_its_two_layers(monkeypatch):
    network = build(value_embeddings=1)
    torch.nn.init.normal_(network.value_embedding.weight, generator=torch.Generator().manual_seed(0))
    seen = []
    forward = Attention.forward
    monkeypatch.setattr(Attention, "forward", lambda self, *args: (seen.append(args[-1]), forward(self, *args))[1])
    network(tokens(), TIMES)
    assert [added is None for added in seen] == [False, True, True, False]
    for added in (seen[0], seen[-1]):
        assert torch.equal(added, network.value_embedding.weight[tokens()])


def test_values_are_those_of_attention_plus_the_embedding():
    """With equal scores attention returns the mean of the values: of the projected ones and of what is added."""
    attention = build(value_embeddings=1).attention[0].inner
    with torch.no_grad():
        attention.qkv_proj.weight[: 2 * D] = 0
    x, added = torch.randn(2, 3, L, D, generator=torch.Generator().manual_seed(0))
    cos, sin = torch.ones(L, D // HEADS // 2), torch.zeros(L, D // HEADS // 2)
    values = x @ attention.qkv_proj.weight[2 * D :].T + added
    expected = (values.mean(dim=1, keepdim=True) @ attention.out_proj.weight.T).expand(3, L, D)
    torch.testing.assert_close(attention(x, None, cos, sin, added), expected, rtol=1e-5, atol=1e-6)


def test_a_skip_adds_the_first_output_to_the_last_input():
    """With the middle layers' branches at 0, the last layer's input is (1 + w) times what the first one returns."""
    network = build(unet_skips=True)
    outputs, inputs = [], []
    network.mlp[0].register_forward_hook(lambda module, args, output: outputs.append(output))
    network.attention[-1].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        for layer in (1, 2):
            network.attention[layer].inner.out_proj.weight.zero_()
            network.mlp[layer].inner.down_proj.weight.zero_()
        network.skip_weights.fill_(0.5)
    network(tokens(), TIMES)
    torch.testing.assert_close(inputs[0], 1.5 * outputs[0])


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_with_every_setting_all_weights_have_a_gradient(time_conditioning):
    network = build(time_conditioning=time_conditioning, **EVERY)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    network.head(network(tokens(), TIMES)).logsumexp(dim=-1).sum().backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


def test_with_every_setting_causal_networks_look_back_only():
    network = build(causal=True, **EVERY)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    one = torch.zeros(1, L, dtype=torch.int64)
    with torch.no_grad():
        changed = network(one + torch.eye(L, dtype=torch.int64), torch.zeros(L))
        # In a batch of the same size: sums may be in another order in one of another size.
        differences = (changed - network(one.expand(L, L), torch.zeros(L))).abs().amax(dim=2)
    visible = torch.ones(L, L, dtype=torch.bool).triu()
    assert differences[visible].min() > 1e-5
    assert not differences[~visible].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value_embeddings": 3}, "must be at most half of num_layers = 4"),
        ({"num_layers": 2, "unet_skips": True}, "pairs need at least 3 layers"),
        ({"mlp": "swiglu"}, "glu"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TransformerConfig.model_validate({"num_layers": LAYERS, "num_heads": HEADS, "hidden_size": D, **settings})
