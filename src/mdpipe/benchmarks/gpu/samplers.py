"""How fast samplers draw sequences: the exact fast one against the plain ancestral one, and others of the same law."""

from dataclasses import asdict, replace
from functools import partial

import torch

from mdpipe.benchmarks.configuration import Configuration
from mdpipe.benchmarks.gpu.part import Report, Row, free_memory, reset_peak_memory
from mdpipe.benchmarks.sampling import measure


def run(report: Report) -> None:
    """Measure every configuration, in the precision and with the steps that it says."""
    torch.set_deterministic_debug_mode("default")  # As `mdpipe bench sample` measures.
    for configuration in report.sizes.samplers:
        here = replace(configuration, device=report.device.type)
        report.attempt(asdict(here), partial(_measure, here, report.device))
        free_memory()


def _measure(configuration: Configuration, device: torch.device) -> Row:
    reset_peak_memory(device)
    return measure(configuration)
