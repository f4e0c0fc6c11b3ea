"""Initial weights have the official implementation's distribution at the paper's sizes."""

import json
import math
import re
from typing import Any

import pytest
from torch import nn

from mdpipe.networks.base import NetworkSpec, build_network, build_uninitialized, count_parameters
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from tests.networks.official import FOLDER

pytestmark = pytest.mark.slow

OFFICIAL: dict[str, dict[str, Any]] = json.loads((FOLDER / "initial_weights.json").read_text())
TEXT = TransformerConfig(num_layers=12, num_heads=12, hidden_size=768, time_conditioning=True)
EXPERIMENTS: dict[str, tuple[NetworkConfig, int, tuple[int, ...]]] = {
    "text8": (TEXT.model_copy(update={"embed_dim": 64}), 27, (256,)),
    "owt": (TEXT, 50257, (1024,)),
    "cifar": (UNetConfig(hidden_size=128, num_blocks=32, time_conditioning=True), 256, (32, 32, 3)),
    "imagenet": (
        UViTConfig(
            hidden_size=256,
            num_blocks=24,
            transformer_width=768,
            num_layers=12,
            num_heads=12,
            time_conditioning=True,
        ),
        256,
        (64, 64, 3),
    ),
}
FEWER: dict[str, dict[str, int]] = {"cifar": {"num_blocks": 1}, "imagenet": {"num_blocks": 1, "num_layers": 1}}
"""Settings that make the test faster and on which no weight's distribution depends."""

CONDITIONING = {
    r"conditioning\.time\.up_proj\.weight": "CondEmbedding_0/dense0/kernel",
    r"conditioning\.time\.down_proj\.weight": "CondEmbedding_0/Dense_0/kernel",
    r"conditioning\.time\..*\.bias": "CondEmbedding_0/Dense_0/bias",
    r"embedding\.weight": "Embed_0/embedding",
}
TRANSFORMER = {
    **CONDITIONING,
    r"embed_proj\.weight": "Transformer_0/Dense_0/kernel",
    r"embed_proj\.bias": "Transformer_0/Dense_0/bias",
    r"attention\.\d+\.inner\.qkv_proj\.weight": "Transformer_0/TransformerBlock_*/attention/wq/kernel",
    r"attention\.\d+\.inner\.out_proj\.weight": "Transformer_0/TransformerBlock_*/attention/wo/kernel",
    r"mlp\.\d+\.inner\.up_proj\.weight": "Transformer_0/TransformerBlock_*/feed_forward/w1/kernel",
    r"mlp\.\d+\.inner\.down_proj\.weight": "Transformer_0/TransformerBlock_*/feed_forward/w2/kernel",
    r"(attention|mlp)\.\d+\.modulation\.(weight|bias)": "Transformer_0/TransformerBlock_*/Dense_0/kernel",
    r"norm\.modulation\.(weight|bias)": "Transformer_0/Dense_1/kernel",
    r"head\.weight": "Transformer_0/Dense_2/kernel",
}
UNET_ROOT = "UNet5DWrapper_0/UNet_0"
UNET = {
    **CONDITIONING,
    r"conv_in\.weight": f"{UNET_ROOT}/Conv_0/kernel",
    r"conv_out\.(weight|bias)": f"{UNET_ROOT}/Conv_1/kernel",
    r"(down|middle)\.\d\.conv1\.weight": f"{UNET_ROOT}/ResBlock_* in128/Conv_0/kernel",
    r"up\.\d\.conv1\.weight": f"{UNET_ROOT}/ResBlock_* in256/Conv_0/kernel",
    r"up\.\d\.shortcut\.weight": f"{UNET_ROOT}/ResBlock_* in256/Dense_1/kernel",
    r"(down|middle|up)\.\d\.conv2\.weight": f"{UNET_ROOT}/ResBlock_* in128/Conv_1/kernel",
    r"(down|middle|up)\.\d\.modulation\.weight": f"{UNET_ROOT}/ResBlock_* in128/Dense_0/kernel",
    r".*norm[12]?\.weight": f"{UNET_ROOT}/GroupNorm_0/scale",
    r"attention\.qkv_proj\.weight": f"{UNET_ROOT}/SelfAttention_0/MultiHeadDotProductAttention_0/query/kernel",
    r"attention\.out_proj\.weight": f"{UNET_ROOT}/SelfAttention_0/MultiHeadDotProductAttention_0/out/kernel",
    r".*\.bias": f"{UNET_ROOT}/Conv_0/bias",
}
UVIT = {
    **CONDITIONING,
    r"conv_in\.weight": f"{UNET_ROOT}/Conv_0/kernel",
    r"conv_out\.(weight|bias)": f"{UNET_ROOT}/Conv_1/kernel",
    r"down\.\d\.conv1\.weight": f"{UNET_ROOT}/ResBlock_* in256/Conv_0/kernel",
    r"up\.\d\.conv1\.weight": f"{UNET_ROOT}/ResBlock_* in512/Conv_0/kernel",
    r"up\.\d\.shortcut\.weight": f"{UNET_ROOT}/ResBlock_* in512/Dense_0/kernel",
    r"(down|up)\.\d\.conv2\.weight": f"{UNET_ROOT}/ResBlock_* in256/Conv_1/kernel",
    r".*norm[12]?\.modulation\.weight": f"{UNET_ROOT}/CondGroupNorm_0/Dense_0/kernel",
    r"patches\.weight": f"{UNET_ROOT}/DiT_0/x_embedder/proj/kernel",
    r"positions": f"{UNET_ROOT}/DiT_0/pos_embed",
    r"pixels\.weight": f"{UNET_ROOT}/DiT_0/final_layer/linear/kernel",
    r"middle\.\d\.qkv_proj\.weight": f"{UNET_ROOT}/DiT_0/blocks_*/attn/wq/kernel",
    r"middle\.\d\.out_proj\.weight": f"{UNET_ROOT}/DiT_0/blocks_*/attn/wo/kernel",
    r"middle\.\d\.up_proj\.weight": f"{UNET_ROOT}/DiT_0/blocks_*/mlp/fc1/kernel",
    r"middle\.\d\.down_proj\.weight": f"{UNET_ROOT}/DiT_0/blocks_*/mlp/fc2/kernel",
    r"middle\.\d\.modulation\.weight": f"{UNET_ROOT}/DiT_0/blocks_*/Dense_0/kernel",
    r".*\.bias": f"{UNET_ROOT}/Conv_0/bias",
}


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_networks_have_exactly_the_official_number_of_parameters(experiment: str) -> None:
    assert count_parameters(build_uninitialized(NetworkSpec(*EXPERIMENTS[experiment]))) == OFFICIAL[experiment]["total"]


def check(network: nn.Module, names: dict[str, str], official: dict[str, dict[str, Any]]) -> None:
    """Compare every weight with its official counterpart.

    A standard deviation of n numbers has a relative error of at most 1 / sqrt(2 n); both must be within six of it.
    """
    for name, weight in network.named_parameters():
        path = next(path for pattern, path in names.items() if re.fullmatch(pattern, name))
        expected = official[f"classifier/{path}"]
        std, count = sum(expected["std"]) / 2, weight.numel()
        if std == 0:
            assert (weight == round(expected["mean"])).all(), name
            continue
        error = std * (1 / math.sqrt(2 * count) + 1 / math.sqrt(2 * math.prod(expected["shape"])))
        assert weight.std().item() == pytest.approx(std, abs=6 * error + 1e-6), name
        if "embed" not in path.lower():  # Kernels are truncated at two standard deviations.
            assert expected["absmax"] * 0.95 < weight.abs().max().item() <= 2 * std / 0.8796 * 1.01, name


@pytest.mark.parametrize(("experiment", "names"), [("text8", TRANSFORMER), ("cifar", UNET), ("imagenet", UVIT)])
def test_initial_weights_have_the_official_distribution(experiment: str, names: dict[str, str]) -> None:
    config, vocab_size, shape = EXPERIMENTS[experiment]
    fewer = config.model_copy(update=FEWER.get(experiment))
    network = build_network(NetworkSpec(fewer, vocab_size, shape), seed=0)
    check(network, names, OFFICIAL[experiment]["parameters"])


def test_embedding_without_projection_is_as_small_as_official() -> None:
    network = build_network(NetworkSpec(TEXT.model_copy(update={"num_layers": 1}), 1000, (8,)), seed=0)
    std = OFFICIAL["owt"]["parameters"]["classifier/Transformer_0/Embed_0/embedding"]["std"][0]
    assert network.embedding.weight.std().item() == pytest.approx(std, rel=0.01)
