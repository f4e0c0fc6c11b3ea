"""`mdpipe plan`: what the stages of params.yaml will download, store, read and compute, before anything runs.

A number that is not known is NaN. Some are upper limits: `ancestral`, which skips steps, takes a call per token, and
Muon's state is as large as AdamW's.

Shapes: F operations of a forward pass per example, P weights, L length.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from mdpipe.commands.plan_sizes import CHARS_PER_TOKEN, DatasetSize, dataset_size, download_size, source_size
from mdpipe.console import WIDTH, table_text
from mdpipe.data.artifacts.files import folder_size
from mdpipe.params import Params, Run
from mdpipe.params.root import RESOLVED_PARAMS_FILE
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerConfig
from mdpipe.pipeline import paths
from mdpipe.pipeline.preflight import missing_paths, missing_weights, unfit_sources
from mdpipe.pipeline.provenance import locked_stages

COLUMNS = {"download": "B", "disk": "B", "tokens": "", "FLOPs": "", "GPU-hours": "h", "CPU-hours": "h"}
"""The table's columns and their units."""
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
MIN_HOURS = 0.01
TERA, GIGA, SECONDS_PER_HOUR = 1e12, 1e9, 3600
WEIGHT_BYTES = 4
STATE_BYTES = 16
"""Per weight in a checkpoint, in float32: the weight, its average and AdamW's two moments."""
METRICS_BYTES = 8
"""Per step in a checkpoint."""
ONE_CALL_PER_STEP = ("maskgit", "genmd4_ancestral")
"""Samplers whose last step unmasks everything; others have one more call, at time 0."""


@dataclass(frozen=True)
class Row:
    """Bytes that a stage downloads and keeps (data, models, checkpoints), tokens read or sampled, FLOPs."""

    stage: str
    download: float = 0
    disk: float = 0
    tokens: float = 0
    flops: float = 0
    is_estimate: bool = False
    """True if a size of data is an estimate."""


@dataclass(frozen=True)
class ModelFlops:
    """F, the operations of training on an example, and P with the objective's weights; unknown if the vocabulary is."""

    forward: float = math.nan
    training: float = math.nan
    weights: float = math.nan
    is_exact: bool = False
    """True if one Monte Carlo sample is enough, since the likelihood is exact."""

    def evaluation(self, samples: int, examples: float) -> float:
        """Return F for each Monte Carlo sample and example."""
        return self.forward * (1 if self.is_exact else samples) * examples

    def sampling(self, sampler: SamplerConfig, count: int, length: int, *, guided: bool) -> float:
        """Return F for each network call and sample, and twice that with guidance.

        From left to right, calls read 1, 2, ..., L tokens, which is (L + 1) / 2 times F, or less by attention's L^2.
        """
        calls = (length + 1) / 2 if sampler.kind == "autoregressive" else num_function_evaluations(sampler, length)
        return self.forward * calls * count * (2 if guided else 1)


def model_flops(run: Run, size: DatasetSize) -> ModelFlops:
    """Return the FLOPs of a run on a dataset."""
    if size.vocab_size is None:
        return ModelFlops()
    from mdpipe.diffusion.objectives.base import Objective
    from mdpipe.networks.base import NetworkSpec, build_uninitialized, count_parameters
    from mdpipe.training.performance import forward_flops, training_flops

    objective = Objective.build(run.objective, size.vocab_size)
    classes = 0 if run.class_cond is None else max(size.classes, 1)
    network = build_uninitialized(NetworkSpec(run.network, size.vocab_size, size.shape, classes, objective.is_causal))
    weights = count_parameters(network) + count_parameters(objective)
    forward, training = forward_flops(network, size.length), training_flops(network, size.length)
    return ModelFlops(forward, training, weights, is_exact=objective.is_causal)


def num_function_evaluations(sampler: SamplerConfig, length: int) -> int:
    """Return one call per step of the grid, or per token without a grid, and as many for each corrector."""
    if not isinstance(sampler, DiscreteTimeSamplerConfig):
        return length
    if sampler.kind in ONE_CALL_PER_STEP:
        return sampler.steps
    calls: int = (sampler.steps + 1) * (1 + getattr(sampler, "num_corrector_steps", 0))
    return min(calls, length) if sampler.kind == "ancestral" else calls


class Plan:
    """Params, and the sizes of the sources, datasets and networks that they name.

    Raises:
        ValueError: A network does not fit its dataset, or a file in data/ or of a tokenizer is broken.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        changed = find_changed("download", "sources", params.sources)
        self.sources = {name: source_size(name, source, name in changed) for name, source in params.sources.items()}
        changed_data = find_changed("encode", "datasets", params.datasets)
        self.datasets = {
            name: dataset_size(
                name, data, self.sources[data.source], is_changed=name in changed_data or data.source in changed
            )
            for name, data in params.datasets.items()
        }
        self.models = {name: model_flops(run, self.datasets[run.dataset]) for name, run in params.runs.items()}

    def rows(self) -> Iterator[Row]:
        """Yield the row of every stage, in the order and with the names of `mdpipe check`."""
        params = self.params
        for name, source in params.sources.items():
            size = self.sources[name]
            yield Row(f"download@{name}", download_size(source, size), size.disk, is_estimate=size.is_estimate)
        for name, data in self.datasets.items():
            yield Row(f"fit_tokenizer@{name}", disk=folder_size(paths.tokenizer(name)))
            yield Row(f"encode@{name}", 0, data.disk, sum(data.tokens.values()), is_estimate=data.is_estimate)
        for name, run in params.runs.items():
            yield from self._run(name, run)
        for name in params.zero_shot.runs:
            for source_name in params.zero_shot.sources:
                yield self._zero_shot(name, source_name)
        for name in params.samplers.runs:
            yield self._samplers(name)
        for name in params.image_quality.features:
            yield Row(f"fit_features@{name}")  # Small next to training, and to sampling for Inception v3.
        for name in params.image_quality.runs:
            yield self._image_quality(name)
        yield Row("report")

    def _run(self, name: str, run: Run) -> Iterator[Row]:
        """Yield the rows of a run; training repeats its passes for each mask sampled of an example."""
        model, data, train, sample = self.models[name], self.datasets[run.dataset], run.train, run.sample
        num_masks = getattr(run.objective, "num_mask_samples", 2 if run.objective.kind == "genmd4" else 1)
        checkpoint = STATE_BYTES * model.weights + METRICS_BYTES * train.steps
        yield Row(
            f"train@{name}",
            disk=WEIGHT_BYTES * model.weights + checkpoint * train.most_checkpoints(),
            tokens=train.steps * train.batch_size * data.length,
            flops=model.training * train.batch_size * train.steps * num_masks,
        )
        flops = model.sampling(sample.sampler, sample.count, data.length, guided=sample.guidance_scale is not None)
        yield Row(f"sample@{name}", tokens=sample.count * data.length, flops=flops)
        tokens, samples = data.tokens[run.evaluate.split], run.evaluate.largest_num_mc_samples
        # Further bounds are estimated twice.
        samples += sum(2 * bound.largest_num_mc_samples for bound in run.evaluate.bounds.values())
        flops = model.evaluation(samples, data.examples(tokens))
        yield Row(f"evaluate@{name}", tokens=tokens, flops=flops, is_estimate=data.is_estimate)

    def _zero_shot(self, name: str, source: str) -> Row:
        """Return the FLOPs of all of a source, with as many tokens per character as the run's dataset has."""
        settings, data = self.params.zero_shot, self.datasets[self.params.runs[name].dataset]
        tokens = sum(self.sources[source].amounts.values()) * data.tokens_per_char
        protocols = settings.sources[source].values()
        passes = sum(data.length / (protocol.stride or data.length) for protocol in protocols)
        flops = self.models[name].evaluation(settings.largest_num_mc_samples, data.examples(tokens)) * passes
        return Row(f"zero_shot@{name}-{source}", tokens=tokens, flops=flops, is_estimate=True)

    def _image_quality(self, name: str) -> Row:
        """Return the FLOPs of the samples, without those of their features."""
        run, measured = self.params.runs[name], self.params.image_quality.runs[name]
        length, guided = self.datasets[run.dataset].length, run.sample.guidance_scale is not None
        samplers = [run.sample.sampler, *measured.samplers.values()]
        flops = sum(self.models[name].sampling(one, measured.count, length, guided=guided) for one in samplers)
        return Row(f"measure_images@{name}", tokens=len(samplers) * measured.count * length, flops=flops)

    def _samplers(self, name: str) -> Row:
        """Return the FLOPs of every fitting sampler, its steps and temperatures, and of scoring samples and test split.

        They are unknown with a model of `transformers`, whose size is.
        """
        suite, run, model = self.params.samplers, self.params.runs[name], self.models[name]
        data, reference = self.datasets[run.dataset], self.models[suite.runs[name].reference_model]
        flops = [
            model.sampling(sampler, suite.count, data.length, guided=False)
            for sampler in suite.samplers_for(run.objective)
            for _ in suite.temperatures_for(sampler)
        ]
        samples, eval_tokens = len(flops) * suite.count, data.tokens["test"]
        scored = reference.evaluation(1, samples + data.examples(eval_tokens))
        if suite.runs[name].causal_lm is not None:
            scored = math.nan
        tokens = samples * data.length + eval_tokens
        return Row(f"compare_samplers@{name}", 0, 0, tokens, sum(flops) + scored, is_estimate=data.is_estimate)


def find_changed(stage: str, section: str, entries: Mapping[str, Any]) -> set[str]:
    """Return the names of the sources or datasets that dvc.lock records with another definition."""
    stages = locked_stages()

    def get_recorded(name: str) -> Any:
        params = (stages.get(f"{stage}@{name}") or {}).get("params", {})
        return params.get(str(RESOLVED_PARAMS_FILE), {}).get(f"{section}.{name}")

    return {name for name, entry in entries.items() if get_recorded(name) not in (None, entry.model_dump(mode="json"))}


def describe(params: Params, mfu: float, peak: float, cpu_gflops: float) -> str:
    """Return the table and what it rests on.

    Args:
        params: The params.
        mfu: Fraction of a GPU's peak that networks reach.
        peak: Peak of a GPU in TFLOP/s.
        cpu_gflops: GFLOP/s that networks reach on a CPU core.

    Raises:
        ValueError: A speed is out of range, or as for `Plan`.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"--mfu = {mfu} must lie in (0, 1]: it is the fraction of the peak that is reached")
    if not peak > 0:
        raise ValueError(f"--peak = {peak} must be positive: TFLOP/s of one GPU")
    if not cpu_gflops > 0:
        raise ValueError(f"--cpu-gflops = {cpu_gflops} must be positive: GFLOP/s of one CPU core")
    plan = Plan(params)
    table = Table("stage", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"  # Numbers keep their width.
    for heading in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    per_gpu_hour, per_core_hour = mfu * peak * TERA * SECONDS_PER_HOUR, cpu_gflops * GIGA * SECONDS_PER_HOUR
    columns: list[list[tuple[float, bool]]] = [[] for _ in COLUMNS]
    for row in plan.rows():
        numbers = (row.download, row.disk, row.tokens, row.flops, row.flops / per_gpu_hour, row.flops / per_core_hour)
        cells = [(number, row.is_estimate) for number in numbers]
        table.add_row(
            row.stage, *(format_sum([cell], unit) for cell, unit in zip(cells, COLUMNS.values(), strict=True))
        )
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    table.add_row("total", *map(format_sum, columns, COLUMNS.values()))
    notes = _notes(
        plan, mfu, peak, cpu_gflops, is_known=not any(math.isnan(number) for column in columns for number, _ in column)
    )
    return "\n".join([table_text(table), *(textwrap.fill(note, WIDTH, break_on_hyphens=False) for note in notes)])


def format_number(value: float, unit: str = "") -> str:
    """Return text such as `1.54 MB` or `12 h`; `?` for unknown and `-` for 0."""
    if math.isnan(value) or not value:
        return "-" if value == 0 else "?"
    if unit == "h":  # The hardware is a guess: two digits.
        return f"<{MIN_HOURS} h" if value < MIN_HOURS else f"{float(f'{value:.2g}'):,.12g} h"
    power = 0
    while power + 1 < len(PREFIXES) and float(f"{value / 1000**power:.3g}") >= 1000:
        power += 1
    return f"{value / 1000**power:.3g} {PREFIXES[power]}{unit}".rstrip()


def format_sum(numbers: Sequence[tuple[float, bool]], unit: str) -> str:
    """Return the sum of numbers, each with whether it is an estimate, which `~` marks.

    If some are unknown, it is `≥` the sum of the others, unless that says nothing.
    """
    known = [(value, is_estimate) for value, is_estimate in numbers if not math.isnan(value)]
    if not known:
        return "?"
    text = format_number(sum(value for value, _ in known), unit)
    is_small = text.startswith(("-", "<"))
    if any(value and is_estimate for value, is_estimate in known) and not is_small:
        text = f"~{text}"
    if len(known) == len(numbers):
        return text
    return "?" if is_small else f"≥ {text}"


def _notes(plan: Plan, mfu: float, peak: float, cpu_gflops: float, *, is_known: bool) -> Iterator[str]:
    """Yield what the numbers rest on, the memory of training, and whether something is unknown."""
    yield (
        f"GPU-hours: at {mfu:.0%} of {peak:g} TFLOP/s. Without a GPU, CPU-hours of one core: at"
        f" {cpu_gflops:g} GFLOP/s; trainings of the default suite reach about 50 on an AMD EPYC"
        " (results/speed/stages.json). FLOPs: the networks' matrix products, with the head at every"
        " position; three forward passes per example in training, and upper limits for the samplers ancestral and"
        " autoregressive. Disk and memory: with AdamW's two moments, of which Muon has one for matrices."
    )
    replicates = plan.params.replicates()
    for name, names in replicates.items():
        if len(names) > 1:
            yield f"Run {name} is trained {len(names)} times, once per seed: {', '.join(names)}."
    bytes_each = STATE_BYTES + WEIGHT_BYTES  # Gradients have the size of the weights.
    memory = [f"{name} {format_number(bytes_each * plan.models[name].weights, 'B')}" for name in replicates]
    yield f"Memory for weights, gradients, averages and moments, without activations: {', '.join(memory) or 'none'}."
    yield (
        "Sizes are those of data/. Where that has none, ~ is an estimate, from the catalog's counts or from your plain"
        " files of text, in which a byte is a character. It is within a fifth for English, which has"
        f" {CHARS_PER_TOKEN} characters per token of GPT-2, and too large for files with other columns or alphabets. An"
        " image of unknown size is one tile of three channels. Not counted: tokenizers, metrics, samples, the report,"
        " and DVC's cache, which takes as much disk space again where the file system has no reflinks."
    )
    yield from missing_paths(plan.params, plan.params.sources)
    yield from unfit_sources(plan.params, plan.params.sources)
    yield from missing_weights(plan.params)
    unknown = "? is unknown until the data are downloaded and encoded; totals are then lower bounds, with ≥."
    yield "Nothing is unknown." if is_known else unknown
