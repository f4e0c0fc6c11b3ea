"""Training measured: tokens a second, the share of the machine's matrix product, and the memory that it took.

It is the step of `mdpipe train` that is timed, optimizer and average of the weights included, on random tokens. Muon's
orthogonalization, which is a part of it, is timed once more by itself after every step. As a
program (`python -m mdpipe.benchmarks.training`) it reads a configuration from the standard input and writes the
measurement to the standard output, both as JSON: memory is only known of a process as a whole.
"""

import json
import statistics
import sys
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from mdpipe.benchmarks.train_configuration import OBJECTIVES, SHAPES, TrainConfiguration
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives.build import build_objective
from mdpipe.networks.base import Network
from mdpipe.networks.build import build_network, parameter_count
from mdpipe.networks.process import set_up_process
from mdpipe.params import AdamW, HardwareSettings, Muon, TrainSettings
from mdpipe.training.acceleration import accelerate
from mdpipe.training.flops import training_flops
from mdpipe.training.muon import orthogonalize_together
from mdpipe.training.optimizer import layer_matrices
from mdpipe.training.parallel import Loss
from mdpipe.training.peak import product_peak, wait_for
from mdpipe.training.progress import peak_memory
from mdpipe.training.state import TrainingState
from mdpipe.training.step import Batch, Step
from mdpipe.training.world import World


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
    hardware = _hardware(configuration)
    accelerate(network, objective, hardware)
    settings = _settings(configuration)
    state = TrainingState(network, objective, settings)
    step = Step(state, Loss(network, objective), settings, hardware, Noise(configuration.seed, "bench"), World())
    random = torch.Generator().manual_seed(configuration.seed)
    tokens = torch.randint(shape.vocabulary, (configuration.batch, length), generator=random)
    memory_before = peak_memory(device)
    matrices = _matrices(network) if configuration.optimizer == "muon" else []
    seconds, orthogonalizing = [], []
    for _ in range(settings.steps):
        wait_for(device)
        start = perf_counter()
        step.take(lambda _, rows: Batch(tokens[rows.start : rows.stop]))
        wait_for(device)
        seconds.append(perf_counter() - start)
        start = perf_counter()
        for alike in matrices:
            orthogonalize_together(alike)
        wait_for(device)
        orthogonalizing.append(perf_counter() - start)
    state.record.check(settings.steps)
    timed = seconds[configuration.warm_up :]
    mean = statistics.mean(timed)
    orthogonalizing_mean = statistics.mean(orthogonalizing[configuration.warm_up :]) if matrices else 0.0
    flops_per_second = flops * tokens.numel() / mean
    return {
        "tokens_per_second": tokens.numel() / mean,
        "examples_per_second": len(tokens) / mean,
        "seconds_a_step": mean,
        "seconds_stderr": statistics.stdev(timed) / len(timed) ** 0.5 if len(timed) > 1 else None,
        "first_step_seconds": seconds[0],
        "orthogonalization_seconds": orthogonalizing_mean,
        "orthogonalization_share": orthogonalizing_mean / mean,
        "flops_per_second": flops_per_second,
        "product_peak": peaks[configuration.precision],
        "share_of_peak": flops_per_second / peaks[configuration.precision],
        "float32_product_peak": peaks["float32"],
        "memory_mib": peak_memory(device),
        "memory_mib_before": memory_before,
        "parameters": parameter_count(network) + parameter_count(objective),
    }


def _matrices(network: Network) -> list[list[Tensor]]:
    """Copies of the matrices that Muon has, those of one shape together."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in layer_matrices(network):
        by_shape.setdefault(matrix.shape, []).append(matrix.detach().clone())
    return list(by_shape.values())


def _hardware(configuration: TrainConfiguration) -> HardwareSettings:
    return HardwareSettings.model_validate(
        {
            "precision": configuration.precision,
            "threads": configuration.threads,
            "processes": 1,
            "strategy": "ddp",
            "micro_batches": 1,
            "compile": configuration.compile,
            "recompute": configuration.recompute,
        }
    )


def _settings(configuration: TrainConfiguration) -> TrainSettings:
    """The paper's, and the default suite's with Muon; these numbers do not change what a step costs."""
    optimizers: dict[str, AdamW | Muon] = {
        "adamw": AdamW(kind="adamw", beta2=0.999, weight_decay=0.03),
        "muon": Muon(kind="muon", momentum=0.95, beta2=0.99, weight_decay=0.03),
    }
    return TrainSettings(
        steps=configuration.warm_up + configuration.steps,
        batch_size=configuration.batch,
        learning_rate=3e-4,
        warmup_steps=0,
        optimizer=optimizers[configuration.optimizer],
        gradient_clip=1.0,
        ema_decay=0.9999,
        checkpoint_every=1,
        keep_checkpoints=1,
    )


if __name__ == "__main__":
    json.dump(measure(TrainConfiguration(**json.load(sys.stdin))), sys.stdout)
