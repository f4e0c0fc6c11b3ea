"""Tests that modules load only the libraries they need."""

import subprocess
import sys

import pytest

SIZES = {"width": 8, "middle_width": 8, "blocks": 1, "layers": 1, "heads": 2}
UVIT = {"vocab_size": 5, "shape": (2, 2, 3), "time_conditioning": True, "dropout": 0.0, **SIZES}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("data.artifacts.metrics", {"torch", "polars", "PIL", "numpy"}),
        ("reporting.page", {"torch", "PIL", "pydantic", "matplotlib"}),
        ("reporting.figures", {"torch", "pydantic", "matplotlib.pyplot"}),
        ("reporting.animation", {"torch", "polars"}),
        ("cli", {"torch", "polars", "matplotlib", "jinja2"}),
        ("training.loop", {"polars", "matplotlib", "jinja2"}),
        ("networks.base; mdpipe.networks.base.build_on_meta('uvit', **UVIT)", {"torch._dynamo", "pydantic"}),
    ],
)
def test_a_module_loads_only_the_libraries_it_needs(module, unwanted):
    """A GPU node that trains and evaluates writes metrics, and has neither polars nor Pillow."""
    program = f"UVIT = {UVIT!r}; import sys, mdpipe.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not unwanted & set(loaded)
