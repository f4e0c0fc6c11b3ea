"""Tests that modules load only the libraries they need."""

import subprocess
import sys

import pytest

SIZES = {"hidden_size": 8, "transformer_width": 8, "num_blocks": 1, "num_layers": 1, "num_heads": 2}

TRAINING_STEP = f"""stages.train, mdpipe.stages.evaluate, mdpipe.networks.base
from mdpipe.params.networks import UViTConfig
spec = mdpipe.networks.base.NetworkSpec(UViTConfig(**{SIZES}), 5, (2, 2, 3))
network = mdpipe.networks.base.build_network(spec, seed=0)
optimizer = mdpipe.training.optimizer.AdamW(network.parameters())
optimizer.zero_grad()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
"""
"""torch's own optimizers, and `to_empty`, load the compiler, two seconds of every start."""


GRAPH_ONLY = {"polars", "altair", "jinja2", "PIL", "sklearn", "sentencepiece", "dvc", "snakemake", "psutil"}
"""A GPU node that trains and evaluates has none of them."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("data.artifacts.files", {"torch", "polars", "PIL", "numpy"}),
        ("reporting.page", {"torch", "pandas"}),
        ("reporting.animation", {"torch", "polars"}),
        ("cli", {"torch", "polars", "altair", "jinja2"}),
        (TRAINING_STEP, {"torch._dynamo", "sympy", *GRAPH_ONLY}),
    ],
)
def test_a_module_loads_only_the_libraries_it_needs(module, unwanted):
    program = f"import sys, mdpipe.{module}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not unwanted & set(loaded)
