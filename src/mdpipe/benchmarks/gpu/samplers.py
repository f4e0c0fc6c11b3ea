"""How fast samplers draw sequences: the exact fast one against the plain ancestral one, and others of the same law."""

from dataclasses import asdict, replace
from functools import partial

import torch

from mdpipe.benchmarks.configuration import Configuration
from mdpipe.benchmarks.gpu.part import Report, Row, free_memory, reset_peak_memory
from mdpipe.benchmarks.sampling import measure
from mdpipe.training.peak import product_peak


def run(report: Report) -> None:
    """Measure every configuration, in the precision and with the steps that it says."""
    device, peaks = report.device, {}
    torch.set_deterministic_debug_mode("default")  # As `mdpipe bench sample` measures.
    for configuration in report.sizes.samplers:
        if configuration.dtype not in peaks:
            peaks[configuration.dtype] = product_peak(
                device, getattr(torch, configuration.dtype), report.sizes.peak_edge
            )
        here = replace(configuration, device=device.type)
        report.attempt(asdict(here), partial(_measure, here, peaks[here.dtype], device))
        free_memory()


def _measure(configuration: Configuration, peak: float, device: torch.device) -> Row:
    reset_peak_memory(device)
    return measure(configuration, peak)
