"""Training measured: tokens a second, the share of the machine's matrix product, and the memory that it took.

It is the step of `mdpipe train` that is timed, optimizer and average of the weights included, on random tokens. Muon's
orthogonalization, which is a part of it, is timed once more by itself. As a program (`python -m
mdpipe.benchmarks.training`) it reads a configuration from the standard input and writes the measurement to the standard
output, both as JSON: memory is only known of a process as a whole.
"""

import json
import statistics
import sys
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from mdpipe.benchmarks.train_configuration import OBJECTIVES, SHAPES, TrainConfiguration
from mdpipe.benchmarks.training_step import OPTIMIZER_SETTINGS, Hardware, Train, build_step, summarize_speed, time_steps
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives.build import build_objective
from mdpipe.networks.base import Network
from mdpipe.networks.build import build_network, parameter_count
from mdpipe.networks.process import set_up_process
from mdpipe.training.flops import training_flops
from mdpipe.training.muon import orthogonalize_together
from mdpipe.training.optimizer import layer_matrices
from mdpipe.training.peak import product_peak, wait_for
from mdpipe.training.progress import peak_memory
from mdpipe.training.step import Batch


def measure(configuration: TrainConfiguration) -> dict[str, Any]:
    """Take the warm-up's steps, then time the others one by one."""
    shape, device = SHAPES[configuration.shape], torch.device(configuration.device)
    set_up_process(configuration.threads)
    peaks = {name: product_peak(device, getattr(torch, name)) for name in {"float32", configuration.precision}}
    network = build_network(shape.kind, shape.vocabulary, shape.shape, seed=configuration.seed, **shape.network).to(
        device
    )
    length = torch.Size(shape.shape).numel()
    flops = training_flops(network, length)
    objective = build_objective(configuration.objective, shape.vocabulary, **OBJECTIVES[configuration.objective])
    train = Train(
        steps=configuration.warm_up + configuration.steps,
        batch_size=configuration.batch,
        optimizer=OPTIMIZER_SETTINGS[configuration.optimizer],
    )
    hardware = Hardware(
        configuration.precision,
        configuration.threads,
        compile=configuration.compile,
        recompute=configuration.recompute,
    )
    step = build_step(network, objective, train, hardware, Noise(configuration.seed, "bench"))
    random = torch.Generator().manual_seed(configuration.seed)
    tokens = torch.randint(shape.vocabulary, (configuration.batch, length), generator=random)
    memory_before = peak_memory(device)
    seconds = time_steps(step, lambda _, rows: Batch(tokens[rows.start : rows.stop]), train.steps)
    step.state.record.check(train.steps)
    peak = peaks[configuration.precision]
    speed = summarize_speed(seconds[configuration.warm_up :], len(tokens), length, flops, peak)
    matrices = _matrices(network) if configuration.optimizer == "muon" else []
    orthogonalization = statistics.mean(_time_orthogonalization(matrices, device, configuration)) if matrices else 0.0
    return {
        **speed,
        "first_step_seconds": seconds[0],
        "orthogonalization_seconds": orthogonalization,
        "orthogonalization_share": orthogonalization / speed["seconds_a_step"],
        "float32_product_peak": peaks["float32"],
        "memory_mib": peak_memory(device),
        "memory_mib_before": memory_before,
        "parameters": parameter_count(network) + parameter_count(objective),
    }


def _matrices(network: Network) -> list[list[Tensor]]:
    """Return copies of the matrices that Muon has, those of one shape together."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in layer_matrices(network):
        by_shape.setdefault(matrix.shape, []).append(matrix.detach().clone())
    return list(by_shape.values())


def _time_orthogonalization(
    matrices: list[list[Tensor]], device: torch.device, configuration: TrainConfiguration
) -> list[float]:
    """Return the seconds that Muon's orthogonalization takes in each of as many steps as are timed."""
    seconds = []
    for _ in range(configuration.warm_up + configuration.steps):
        wait_for(device)
        start = perf_counter()
        for alike in matrices:
            orthogonalize_together(alike)
        wait_for(device)
        seconds.append(perf_counter() - start)
    return seconds[configuration.warm_up :]


if __name__ == "__main__":
    json.dump(measure(TrainConfiguration(**json.load(sys.stdin))), sys.stdout)
