"""The count of operations from weights' shapes is torch's own count."""

import math
import subprocess
import sys

import pytest

from mdpipe.networks.base import NetworkSpec, build_uninitialized
from mdpipe.networks.transformer import Transformer
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from mdpipe.training.performance import forward_flops, forward_flops_by_torch, training_flops

TRANSFORMER = TransformerConfig(num_layers=3, num_heads=2, hidden_size=16)
EVERY_SETTING = TRANSFORMER.model_copy(
    update={"qk_norm": True, "mlp": "relu_squared", "value_embeddings": 1, "unet_skips": True}
)
CONFIGS = [
    TRANSFORMER,
    EVERY_SETTING,
    UNetConfig(hidden_size=16, num_blocks=2),
    UViTConfig(hidden_size=16, num_blocks=2, transformer_width=24, num_layers=3, num_heads=2),
]
SEQUENCES, IMAGES = [(12,), (7,)], [(4, 4, 1), (6, 4, 3)]
CASES = [(config, shape) for config in CONFIGS for shape in (SEQUENCES if config.takes_text else IMAGES)]


def test_every_built_in_network_is_compared():
    assert {config.kind for config in CONFIGS} == NetworkConfig.kinds.keys()


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("time_conditioning", [False, True])
@pytest.mark.parametrize(("config", "shape"), CASES, ids=lambda value: getattr(value, "kind", None))
def test_count_from_shapes_equals_torchs_count(config, shape, time_conditioning, classes):
    config = config.model_copy(update={"time_conditioning": time_conditioning})
    network = build_uninitialized(NetworkSpec(config, 11, shape, num_classes=classes))
    length = math.prod(shape)
    assert forward_flops(network, length) == forward_flops_by_torch(network, length) > 0
    assert training_flops(network, length) == 3 * forward_flops(network, length)


@pytest.mark.parametrize("length", [1, 2, 12])
@pytest.mark.parametrize(("embed_dim", "causal"), [(None, True), (8, False)])
def test_shorter_sequences_and_other_transformers_are_counted(embed_dim, causal, length):
    config = TRANSFORMER.model_copy(update={"embed_dim": embed_dim, "time_conditioning": True})
    network = build_uninitialized(NetworkSpec(config, 11, (12,), causal=causal))
    assert forward_flops(network, length) == forward_flops_by_torch(network, length)


def test_networks_of_ones_own_are_counted_by_torch():
    class Twice(Transformer):
        def forward(self, *arguments, **named):
            return super().forward(*arguments, **named) + super().forward(*arguments, **named)

    once = forward_flops(Transformer(TRANSFORMER, 11, (12,)), 12)
    head = 2 * 12 * 16 * 11
    assert forward_flops(Twice(TRANSFORMER, 11, (12,)), 12) == 2 * once - head


@pytest.mark.slow
def test_counting_does_not_import_the_compiler():
    code = (
        "import sys; from mdpipe.networks.base import NetworkSpec, build_uninitialized;"
        "from mdpipe.params.networks import UNetConfig;"
        "from mdpipe.training.performance import forward_flops;"
        "n = build_uninitialized(NetworkSpec(UNetConfig(hidden_size=16, num_blocks=1), 256, (8, 8, 3)));"
        "assert forward_flops(n, 192) > 0; sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
