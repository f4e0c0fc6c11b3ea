"""The count of operations from weights' shapes is torch's own count."""

import math
import subprocess
import sys

import pytest

from mdpipe.kinds import kinds_of
from mdpipe.networks.base import Network, build_on_meta
from mdpipe.networks.transformer import Transformer
from mdpipe.training.flops import forward_flops, forward_flops_by_torch, training_flops

SEQUENCES, IMAGES = [(12,), (7,)], [(4, 4, 1), (6, 4, 3)]
SETTINGS = {
    "transformer": {"layers": 3, "heads": 2, "width": 16},
    "unet": {"width": 16, "blocks": 2},
    "uvit": {"width": 16, "blocks": 2, "middle_width": 24, "layers": 3, "heads": 2},
}
CASES = [(kind, shape) for kind in SETTINGS for shape in (SEQUENCES if kind == "transformer" else IMAGES)]


def test_every_built_in_network_is_compared():
    assert SETTINGS.keys() == kinds_of("mdpipe.networks", Network).keys()


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("time_conditioning", [False, True])
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_count_from_shapes_equals_torchs_count(kind, shape, time_conditioning, classes):
    settings = {**SETTINGS[kind], "time_conditioning": time_conditioning, "dropout": 0.1}
    network = build_on_meta(kind, 11, shape, num_classes=classes, **settings)
    length = math.prod(shape)
    assert forward_flops(network, length) == forward_flops_by_torch(network, length) > 0
    assert training_flops(network, length) * length == 3 * forward_flops(network, length)


@pytest.mark.parametrize("length", [1, 2, 12])
@pytest.mark.parametrize("settings", [{"causal": True}, {"embed_dim": 8}])
def test_shorter_sequences_and_other_transformers_are_counted(settings, length):
    network = build_on_meta(
        "transformer", 11, (12,), **SETTINGS["transformer"], **settings, time_conditioning=True, dropout=0.0
    )
    assert forward_flops(network, length) == forward_flops_by_torch(network, length)


def test_networks_of_ones_own_are_counted_by_torch():
    class Twice(Transformer):
        def forward(self, *arguments, **named):
            return super().forward(*arguments, **named) + super().forward(*arguments, **named)

    settings = {
        **SETTINGS["transformer"],
        "time_conditioning": False,
        "dropout": 0.0,
        "num_classes": 0,
        "causal": False,
    }
    once = forward_flops(Transformer(11, (12,), **settings), 12)
    head = 2 * 12 * 16 * 11
    assert forward_flops(Twice(11, (12,), **settings), 12) == 2 * once - head


@pytest.mark.slow
def test_counting_does_not_import_the_compiler():
    code = (
        "import sys; from mdpipe.networks.base import build_on_meta; from mdpipe.training.flops import forward_flops;"
        "n = build_on_meta('unet', 256, (8, 8, 3), width=16, blocks=1, time_conditioning=True, dropout=0.0);"
        "assert forward_flops(n, 192) > 0; sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
