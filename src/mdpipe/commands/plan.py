"""`mdpipe plan`: what the stages of params.yaml will download, store, read and compute, before anything runs.

Shapes: F operations of a forward pass per example, P weights, B batch, T steps, L length.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from rich.table import Table

from mdpipe.commands.plan_datasets import CHARS_PER_TOKEN, DatasetSize, dataset_size, text_tokens, tokenizer_size
from mdpipe.commands.plan_sources import NOTHING, UNKNOWN, Estimate, SourceSize, download_size, source_size, total
from mdpipe.console import WIDTH, table_text
from mdpipe.params import Params, Run
from mdpipe.params.data import TextDataset
from mdpipe.params.root import RESOLVED_PARAMS_FILE
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerConfig
from mdpipe.params.strict_yaml import StrictYAMLError, read_yaml
from mdpipe.pipeline.preflight import missing_paths, missing_weights

COLUMNS = {"download": "B", "disk": "B", "tokens": "", "FLOPs": "", "GPU-hours": "h"}
"""The table's columns and their units."""
TERA, SECONDS_PER_HOUR = 1e12, 3600
BACKWARD = 2
"""Forward passes that a backward pass costs."""
WEIGHT_BYTES = 4
STATE_BYTES = 16
"""Per weight in a checkpoint, in float32: the weight, its average and AdamW's two moments."""
ONE_CALL_PER_STEP = ("maskgit", "genmd4_ancestral")
"""Samplers whose last step unmasks everything; others have one more call, at time 0."""


@dataclass(frozen=True)
class Row:
    """Resources that a stage takes."""

    stage: str
    download: Estimate = NOTHING
    """Bytes."""
    disk: Estimate = NOTHING
    """Bytes of data, models and checkpoints."""
    tokens: Estimate = NOTHING
    """Read, trained on or sampled."""
    flops: Estimate = NOTHING


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of a run's network; unknown if its vocabulary is."""

    forward: Estimate = UNKNOWN
    """F."""
    prefixes: Estimate = UNKNOWN
    """The sum of F over examples of 1, 2, ..., L tokens: the FLOPs of an autoregressive sample."""
    weights: Estimate = UNKNOWN
    """P, including the objective's."""
    is_exact: bool = False
    """True if one Monte Carlo sample is enough, since the likelihood is exact."""

    def training(self, run: Run) -> Estimate:
        """Return (1 + 2) F B T for each mask sampled of an example (two in GenMD4)."""
        masks: int = getattr(run.objective, "num_mask_samples", 2 if run.objective.kind == "genmd4" else 1)
        return self.forward * ((1 + BACKWARD) * run.train.batch_size * run.train.steps * masks)

    def state(self, run: Run) -> Estimate:
        """Return 16 P bytes: weights, averages and two moments; Muon has one for matrices, so it is a guess there."""
        return (self.weights * STATE_BYTES).estimated(run.train.optimizer.kind != "adamw")

    def disk(self, run: Run) -> Estimate:
        """Return the bytes of models/RUN and of the checkpoints, which also have 8 bytes of metrics per step."""
        checkpoint = self.state(run) + Estimate(2 * WEIGHT_BYTES * run.train.steps)
        return self.weights * WEIGHT_BYTES + checkpoint * run.train.most_checkpoints()

    def evaluation(self, samples: int, examples: Estimate) -> Estimate:
        """Return F for each Monte Carlo sample and example."""
        return self.forward * (1 if self.is_exact else samples) * examples

    def sampling(self, sampler: SamplerConfig, count: int, length: int, *, guided: bool) -> Estimate:
        """Return F for each network call and sample, and twice that with guidance.

        `ancestral` skips steps at random; one call per token, the most, is taken for it.
        """
        is_causal = sampler.kind == "autoregressive"
        flops = self.prefixes if is_causal else self.forward * num_function_evaluations(sampler, length)
        return flops.estimated(sampler.kind == "ancestral") * (count * (2 if guided else 1))


def model_flops(run: Run, size: DatasetSize) -> ModelFlops:
    """Return the FLOPs of a run on a dataset.

    Raises:
        ValueError: the network does not fit the dataset.
    """
    if size.vocab_size is None:
        return ModelFlops()
    from mdpipe.diffusion.objectives.base import build_objective
    from mdpipe.networks.base import build_on_meta, count_parameters
    from mdpipe.training.performance import forward_flops

    objective = build_objective(run.objective, size.vocab_size)
    classes = 0 if run.class_cond is None else max(size.classes, 1)
    network = build_on_meta(run.network, size.vocab_size, size.shape, num_classes=classes, causal=objective.is_causal)
    # Newton's series of the sum, since F has a constant, a linear and a square part.
    first, second, third = (forward_flops(network, length) if objective.is_causal else 0 for length in (1, 2, 3))
    differences = (first, second - first, third - 2 * second + first)
    prefixes = sum(math.comb(size.length, order + 1) * difference for order, difference in enumerate(differences))
    return ModelFlops(
        Estimate(forward_flops(network, size.length), size.is_guess),
        Estimate(prefixes, size.is_guess),
        Estimate(count_parameters(network) + count_parameters(objective), size.is_guess),
        is_exact=objective.is_causal,
    )


def num_function_evaluations(sampler: SamplerConfig, length: int) -> int:
    """Return one call per step of the grid, or per token without a grid, and as many for each corrector."""
    if not isinstance(sampler, DiscreteTimeSamplerConfig):
        return length
    if sampler.kind in ONE_CALL_PER_STEP:
        return sampler.steps
    calls: int = (sampler.steps + 1) * (1 + getattr(sampler, "num_corrector_steps", 0))
    return min(calls, length) if sampler.kind == "ancestral" else calls


@dataclass(frozen=True)
class Plan:
    """Params, and the sizes of the sources, datasets and networks that they name."""

    params: Params
    outdated: frozenset[str]
    """Datasets whose artifacts have another definition, or come from a source that has."""
    sources: dict[str, SourceSize]
    datasets: dict[str, DatasetSize]
    models: dict[str, ModelFlops]

    @classmethod
    def of(cls, params: Params) -> "Plan":
        """Collect the sizes.

        Raises:
            ValueError: a network does not fit its dataset, or a file in data/ or of a tokenizer is broken.
        """
        changed = find_changed("download", "sources", params.sources)
        sources = {name: source_size(name, source, name in changed) for name, source in params.sources.items()}
        outdated = find_changed("encode", "datasets", params.datasets)
        outdated |= {name for name, dataset in params.datasets.items() if dataset.source in changed}
        datasets = {
            name: dataset_size(name, data, params.sources[data.source], sources[data.source], name in outdated)
            for name, data in params.datasets.items()
        }
        models = {name: model_flops(run, datasets[run.dataset]) for name, run in params.runs.items()}
        return cls(params, outdated, sources, datasets, models)

    def rows(self) -> Iterator[Row]:
        """Yield the row of every stage, in the order and with the names of `mdpipe check`."""
        params = self.params
        for name, source in params.sources.items():
            size = self.sources[name]
            yield Row(f"download@{name}", download_size(source, size.content), size.disk)
        for name, dataset in params.datasets.items():
            yield Row(f"fit_tokenizer@{name}", *tokenizer_size(name, dataset, name in self.outdated))
            encoded = self.datasets[name]
            yield Row(f"encode@{name}", disk=encoded.disk, tokens=total(encoded.tokens.values()))
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
        model, data, sample = self.models[name], self.datasets[run.dataset], run.sample
        trained_on = Estimate(run.train.steps * run.train.batch_size * data.length)
        yield Row(f"train@{name}", disk=model.disk(run), tokens=trained_on, flops=model.training(run))
        flops = model.sampling(sample.sampler, sample.count, data.length, guided=sample.guidance_scale is not None)
        yield Row(f"sample@{name}", tokens=Estimate(sample.count * data.length), flops=flops)
        eval_tokens = data.tokens[run.evaluate.split]
        # Further bounds are estimated twice.
        samples = run.evaluate.largest_num_mc_samples
        samples += sum(2 * bound.largest_num_mc_samples for bound in run.evaluate.bounds.values())
        flops = model.evaluation(samples, data.examples(eval_tokens))
        yield Row(f"evaluate@{name}", tokens=eval_tokens, flops=flops)

    def _zero_shot(self, name: str, source: str) -> Row:
        """Return the FLOPs of all of a source, by the tokenizer of the run's dataset, under each of its protocols."""
        run, settings, size = self.params.runs[name], self.params.zero_shot, self.sources[source]
        data, dataset = self.datasets[run.dataset], cast("TextDataset", self.params.datasets[run.dataset])
        tokens = text_tokens(total(size.amounts.values()), size, data.tokenizer, dataset)
        protocols = settings.sources[source].values()
        passes = sum(data.length / (protocol.stride or data.length) for protocol in protocols)
        flops = self.models[name].evaluation(settings.largest_num_mc_samples, data.examples(tokens)) * passes
        return Row(f"zero_shot@{name}-{source}", tokens=tokens, flops=flops)

    def _image_quality(self, name: str) -> Row:
        """Return the FLOPs of the samples, without those of their features."""
        run, measured = self.params.runs[name], self.params.image_quality.runs[name]
        length, guided = self.datasets[run.dataset].length, run.sample.guidance_scale is not None
        samplers = [run.sample.sampler, *measured.samplers.values()]
        flops = [self.models[name].sampling(sampler, measured.count, length, guided=guided) for sampler in samplers]
        tokens = Estimate(len(samplers) * measured.count * length)
        return Row(f"measure_images@{name}", tokens=tokens, flops=total(flops))

    def _samplers(self, name: str) -> Row:
        """Return the FLOPs of every fitting sampler, its steps and temperatures, and of scoring samples and test split.

        They are unknown with a model of `transformers`, whose size is.
        """
        suite, run, model = self.params.samplers, self.params.runs[name], self.models[name]
        data, reference = self.datasets[run.dataset], self.models[suite.runs[name].reference_model]
        sampling_flops = [
            model.sampling(sampler, suite.count, data.length, guided=False)
            for sampler in suite.samplers_for(run.objective)
            for _ in suite.temperatures_for(sampler)
        ]
        samples, eval_tokens = Estimate(len(sampling_flops) * suite.count), data.tokens["test"]
        scored = reference.evaluation(1, samples + data.examples(eval_tokens))
        if suite.runs[name].causal_lm is not None:
            scored = UNKNOWN
        tokens = samples * data.length + eval_tokens
        return Row(f"compare_samplers@{name}", tokens=tokens, flops=total(sampling_flops) + scored)


def find_changed(stage: str, section: str, entries: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the sources or datasets that dvc.lock records with another definition."""
    try:
        stages = read_yaml(Path("dvc.lock").read_bytes())["stages"]
    except (FileNotFoundError, StrictYAMLError, TypeError, KeyError):  # There is none, or it is broken.
        return frozenset()

    def is_changed(name: str) -> bool:
        try:
            recorded = stages[f"{stage}@{name}"]["params"][str(RESOLVED_PARAMS_FILE)][f"{section}.{name}"]
            return bool(type(entries[name]).model_validate(recorded) != entries[name])
        except (KeyError, TypeError):
            return False
        except ValidationError:
            return True

    return frozenset(filter(is_changed, entries))


def describe(params: Params, mfu: float, peak: float) -> str:
    """Return the table and what it rests on.

    Args:
        params: the stages that would run.
        mfu: fraction of the peak that the networks' matrix products reach.
        peak: TFLOP/s of the GPU.

    Raises:
        ValueError: `mfu` or `peak` is out of range, or a network does not fit its dataset.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"--mfu = {mfu} must lie in (0, 1]: it is the fraction of the peak that is reached")
    if not peak > 0:
        raise ValueError(f"--peak = {peak} must be positive: TFLOP/s of one GPU")
    plan = Plan.of(params)
    table = Table("stage", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for heading in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    hours_per_flop, units = 1 / (mfu * peak * TERA * SECONDS_PER_HOUR), COLUMNS.values()
    cells = {
        row.stage: (row.download, row.disk, row.tokens, row.flops, row.flops * hours_per_flop) for row in plan.rows()
    }
    for stage, estimates in cells.items():
        table.add_row(stage, *(estimate.format(unit) for estimate, unit in zip(estimates, units, strict=True)))
    columns = list(zip(*cells.values(), strict=True))
    table.add_row("total", *(format_sum(column, unit) for column, unit in zip(columns, units, strict=True)))
    is_known = not any(estimate.is_unknown for column in columns for estimate in column)
    notes = [*_notes(plan, mfu, peak, is_known=is_known), *_slow_precision(params)]
    return "\n".join([table_text(table), *(textwrap.fill(note, WIDTH, break_on_hyphens=False) for note in notes)])


def format_sum(estimates: Sequence[Estimate], unit: str) -> str:
    """Return the sum; if some are unknown, `at least` the sum of the others, unless that says nothing."""
    text = total(estimate for estimate in estimates if not estimate.is_unknown).format(unit)
    if not any(estimate.is_unknown for estimate in estimates):
        return text
    return "?" if text.startswith(("-", "<")) else f"at least {text}"


def _notes(plan: Plan, mfu: float, peak: float, *, is_known: bool) -> Iterator[str]:
    """Yield what the numbers rest on, the memory of training, and whether something is unknown."""
    yield (
        f"GPU-hours: at {mfu:.0%} of {peak:g} TFLOP/s. FLOPs: the networks' matrix products, with the head at every"
        " position; three forward passes per example in training. Sizes: those of data/, where it exists."
    )
    for name, names in plan.params.replicates().items():
        if len(names) > 1:
            yield f"Run {name} is trained {len(names)} times, once per seed: {', '.join(names)}."
    memory = [
        f"{name} {(plan.models[name].state(run) + plan.models[name].weights * WEIGHT_BYTES).format('B')}"
        for name, run in plan.params.runs.items()
        if name in plan.params.replicates()
    ]
    yield f"Memory for weights, gradients, averages and moments, without activations: {', '.join(memory) or 'none'}."
    yield (
        "~ is an estimate, from samples of files, the catalog's counts and, before a tokenizer is there, what is usual"
        f" for English ({CHARS_PER_TOKEN} characters per token of GPT-2). Not counted: metrics, samples, the report,"
        " and DVC's cache, which takes as much disk space again where the file system has no reflinks."
    )
    yield from (f"{size.note}." for size in plan.sources.values() if size.note)
    yield from missing_paths(plan.params, plan.params.sources)
    yield from missing_weights(plan.params)
    if is_known:
        yield "Nothing is unknown."
    else:
        yield "? is unknown until the data are downloaded and encoded; totals are then lower bounds."


def _slow_precision(params: Params) -> list[str]:
    """Return a note on runs in bfloat16 if this machine has no GPU and is slow in bfloat16."""
    runs = [name for name, run in params.runs.items() if run.hardware.precision == "bfloat16"]
    if not runs:
        return []
    import torch

    from mdpipe.training.performance import find_bfloat16_problem

    if torch.cuda.is_available() or not (problem := find_bfloat16_problem(torch.device("cpu"))):
        return []
    return [f"Trained here, without a GPU ({', '.join(runs)}): {problem}."]
