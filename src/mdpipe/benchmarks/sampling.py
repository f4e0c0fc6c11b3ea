"""Sampling measured: tokens a second, what was computed for them, and the memory that it took.

As a program (`python -m mdpipe.benchmarks.sampling`) it reads a configuration from the standard input and writes the
measurement to the standard output, both as JSON: memory is only known of a process as a whole.
"""

import json
import statistics
import sys
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor

from mdpipe.benchmarks.configuration import Configuration
from mdpipe.benchmarks.flops import head_flops, trunk_flops
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.samplers.build import build_sampler
from mdpipe.diffusion.schedules.linear import Linear
from mdpipe.networks.build import build_network
from mdpipe.networks.memory import keep_freed_memory
from mdpipe.networks.transformer import Transformer
from mdpipe.training.peak import product_peak, wait_for
from mdpipe.training.progress import peak_memory

WHOLE = Linear(0.0)
"""The schedule: with nothing masked at time 0, a walk has its T steps and none for what is left over."""


class Counted:
    """A denoiser that counts its calls, the rows that its trunk ran on and the positions that its head ran on."""

    def __init__(self, network: Transformer) -> None:
        self.network = network
        self.calls = self.rows = self.positions = 0

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """The network's hidden states."""
        self.calls += 1
        self.rows += len(tokens)
        hidden: Tensor = self.network(tokens, time, condition)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """The network's logits."""
        self.positions += hidden.shape[:-1].numel()
        logits: Tensor = self.network.head(hidden)
        return logits

    def flops(self, length: int) -> int:
        """Operations of the dense products so far, all rows having L tokens."""
        return self.rows * trunk_flops(self.network, length) + self.positions * head_flops(self.network)


def measure(configuration: Configuration) -> dict[str, Any]:
    """Draw a batch of nothing but masks, several times; the means over these walks.

    A sampler whose steps all cost the same may walk fewer of them: seconds and network calls are then scaled to all,
    and `steps_measured` says how many there were.
    """
    torch.set_num_threads(configuration.threads)
    keep_freed_memory()
    device = torch.device(configuration.device)
    peak = product_peak(device, getattr(torch, configuration.dtype))
    network = network_of(configuration).to(device, getattr(torch, configuration.dtype))
    memory_before = peak_memory(device)
    _warm_up(network, configuration, device)
    denoiser, seconds = Counted(network), []
    masks = torch.full((configuration.batch, configuration.length), configuration.vocabulary, device=device)
    for repeat in range(configuration.repeats):
        wait_for(device)
        start = perf_counter()
        sampler = sampler_of(configuration.sampler, configuration.steps_measured)
        _fill(sampler, denoiser, masks, Noise(configuration.seed, f"bench/{repeat}"))
        wait_for(device)
        seconds.append(perf_counter() - start)
    flops_per_second = denoiser.flops(configuration.length) / sum(seconds)
    scale = configuration.steps_in_all / configuration.steps_measured
    whole = [walk * scale for walk in seconds]
    return {
        "tokens_per_second": masks.numel() / statistics.mean(whole),
        "seconds": statistics.mean(whole),
        "seconds_stderr": statistics.stdev(whole) / len(whole) ** 0.5 if len(whole) > 1 else None,
        "network_calls": denoiser.calls * scale / configuration.repeats,
        "steps_measured": configuration.steps_measured,
        "flops_per_second": flops_per_second,
        "product_peak": peak,
        "share_of_peak": flops_per_second / peak,
        "memory_mib": peak_memory(device),
        "memory_mib_before": memory_before,
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }


def network_of(configuration: Configuration) -> Transformer:
    """The network, with a random head: a fresh one is zero, and no speed should be owed to equal logits."""
    built = build_network(
        "transformer",
        configuration.vocabulary,
        (configuration.length,),
        seed=configuration.seed,
        layers=configuration.layers,
        heads=configuration.heads,
        width=configuration.width,
        time_conditioning=False,
        dropout=0.0,
    )
    network = cast("Transformer", built)
    generator = torch.Generator().manual_seed(configuration.seed)
    torch.nn.init.normal_(network.head.weight, std=configuration.width**-0.5, generator=generator)
    return network.eval()


def sampler_of(kind: str, steps: int) -> Sampler[Any]:
    """The sampler of this kind, walking so many steps if it walks a grid."""
    return build_sampler(kind) if kind == "first_hitting" else build_sampler(kind, steps=steps, grid="uniform")


def _warm_up(network: Transformer, configuration: Configuration, device: torch.device) -> None:
    """One mask a row and one step: every kernel runs once, and no sampler takes more memory than in its walk."""
    tokens = torch.zeros(configuration.batch, configuration.length, dtype=torch.int64, device=device)
    tokens[:, 0] = configuration.vocabulary
    _fill(sampler_of(configuration.sampler, 1), Counted(network), tokens, Noise(configuration.seed, "bench/warm-up"))


def _fill(sampler: Sampler[Any], denoiser: Counted, tokens: Tensor, noise: Noise) -> Tensor:
    examples = torch.arange(len(tokens), device=tokens.device)
    return sampler(denoiser, WHOLE, denoiser.network.vocabulary, tokens, noise, examples)


if __name__ == "__main__":
    json.dump(measure(Configuration(**json.load(sys.stdin))), sys.stdout)
