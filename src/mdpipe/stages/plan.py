"""`mdpipe plan`: what the stages of params.yaml will fetch, keep, read and compute, counted before anything runs."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from mdpipe.params import Params
from mdpipe.params.sampling import OnGrid, fits
from mdpipe.stages.plan_costs import COUNT_BYTES, HEADER_BYTES, RESULT_BYTES, Model, model_of
from mdpipe.stages.plan_datasets import PIECE, Encoded, encoded_of, tokenizer_sizes, tokenizer_tokens, tokens_of
from mdpipe.stages.plan_figures import NOTHING, Figure, at_least, counted, in_bytes, in_hours, total
from mdpipe.stages.plan_recorded import is_of_another, recorded_params
from mdpipe.stages.plan_sizes import Material, fetched, material_of

TERA = 1e12
HOUR = 3600
WIDTH = 120
COLUMNS = ("download", "disk", "tokens", "FLOPs")
WRITTEN = (in_bytes, in_bytes, counted, counted, in_hours)


@dataclass(frozen=True)
class Row:
    """What a stage takes."""

    stage: str
    download: Figure = NOTHING
    """Bytes fetched over the network."""
    disk: Figure = NOTHING
    """Bytes that its outputs take, and its resume states."""
    tokens: Figure = NOTHING
    """Read, trained on or drawn."""
    flops: Figure = NOTHING

    def hours(self, mfu: float, peak: float) -> Figure:
        """FLOPs / (mfu * peak), of one GPU."""
        return self.flops * (1 / (mfu * peak * TERA * HOUR))


@dataclass(frozen=True)
class Plan:
    """Params, and what is known of what they name."""

    params: Params
    materials: dict[str, Material]
    datasets: dict[str, Encoded]
    models: dict[str, Model]
    outdated: frozenset[str]
    """Sources and datasets whose artifacts are of another definition, as `sources.NAME`."""

    @classmethod
    def of(cls, params: Params) -> "Plan":
        """Find out what there is to know.

        Raises:
            ValueError: a network does not fit its dataset, or a tokenizer's file is broken.
        """
        outdated = _outdated(params)
        materials = {
            name: material_of(name, source, f"sources.{name}" in outdated) for name, source in params.sources.items()
        }
        datasets = {
            name: encoded_of(
                name,
                dataset,
                params.sources[dataset.source],
                materials[dataset.source],
                f"datasets.{name}" in outdated,
            )
            for name, dataset in params.datasets.items()
        }
        models = {name: model_of(run, datasets[run.dataset]) for name, run in params.runs.items()}
        return cls(params, materials, datasets, models, outdated)

    def rows(self) -> Iterator[Row]:
        """One a stage, in the order and by the names of `mdpipe check`."""
        for name, source in self.params.sources.items():
            material = self.materials[name]
            yield Row(f"download@{name}", fetched(source, material.content), material.disk)
        for name, dataset in self.params.datasets.items():
            encoded = self.datasets[name]
            yield Row(
                f"tokenizer@{name}",
                *tokenizer_sizes(name, dataset, f"datasets.{name}" in self.outdated),
                tokenizer_tokens(dataset, encoded),
            )
            yield Row(f"encode@{name}", disk=encoded.disk, tokens=encoded.tokens)
        for name in self.params.runs:
            yield from self._run(name)
        for name in self.params.zero_shot.runs:
            for corpus in self.params.zero_shot.sources:
                yield self._zero_shot(name, corpus)
        for name in self.params.samplers.runs:
            yield self._samplers(name)
        yield Row("report")

    def _run(self, name: str) -> Iterator[Row]:
        """Training, samples and evaluation."""
        run, model = self.params.runs[name], self.models[name]
        encoded = self.datasets[run.dataset]
        trained_on = Figure(run.train.steps * run.train.batch_size * encoded.length)
        yield Row(f"train@{name}", disk=model.kept(run), tokens=trained_on, flops=model.training(run))
        sample = run.sample
        drawn = Figure(sample.count * encoded.length)
        guided = sample.guidance is not None
        cost = model.drawing(sample.sampler, sample.steps, sample.count, encoded.length, guided)
        yield Row(f"sample@{name}", disk=drawn * COUNT_BYTES + Figure(HEADER_BYTES), tokens=drawn, flops=cost)
        held_out = encoded.splits[run.evaluate.split]
        examples = held_out.over(encoded.length)
        cost = model.evaluation(run.evaluate.draws, examples)
        kept = examples * RESULT_BYTES + Figure(HEADER_BYTES)
        yield Row(f"evaluate@{name}", disk=kept, tokens=held_out, flops=cost)

    def _zero_shot(self, name: str, source: str) -> Row:
        """All of a source, by the tokenizer of the run's own dataset."""
        run = self.params.runs[name]
        tokens = tokens_of(self.materials[source].amount, self.params.datasets[run.dataset].tokenizer)
        examples = tokens.over(self.datasets[run.dataset].length)
        cost = self.models[name].evaluation(self.params.zero_shot.draws, examples)
        return Row(f"zero_shot@{name}-{source}", tokens=tokens, flops=cost)

    def _samplers(self, name: str) -> Row:
        """Every sampler that fits, at every number of steps; all samples, and the test split, pass by the judge."""
        suite, run, model = self.params.samplers, self.params.runs[name], self.models[name]
        encoded, judge = self.datasets[run.dataset], self.models[suite.runs[name].judge]
        costs = [
            model.drawing(sampler, steps, suite.count, encoded.length)
            for sampler in suite.samplers
            if fits(sampler.kind, run.objective)
            for steps in (suite.steps if isinstance(sampler, OnGrid) else [None])
        ]
        drawn = Figure(len(costs) * suite.count)
        held_out = encoded.splits["test"]
        judged = judge.evaluation(1, drawn + held_out.over(encoded.length))
        return Row(f"samplers@{name}", tokens=drawn * encoded.length + held_out, flops=total(costs) + judged)


def _outdated(params: Params) -> frozenset[str]:
    """Return the sources and datasets that dvc.lock records with another definition, and datasets of such sources."""
    recorded = recorded_params()
    sources = {
        name
        for name, source in params.sources.items()
        if is_of_another(recorded.get(f"download@{name}", {}), "sources", name, source)
    }
    datasets = {
        name
        for name, dataset in params.datasets.items()
        if dataset.source in sources or is_of_another(recorded.get(f"encode@{name}", {}), "datasets", name, dataset)
    }
    return frozenset({f"sources.{name}" for name in sources} | {f"datasets.{name}" for name in datasets})


def summed(rows: Sequence[Row]) -> Row:
    """The last row."""
    return Row(
        "total",
        download=total(row.download for row in rows),
        disk=total(row.disk for row in rows),
        tokens=total(row.tokens for row in rows),
        flops=total(row.flops for row in rows),
    )


def describe(params: Params, mfu: float, peak: float) -> str:
    """The table, and what its figures rest on.

    Args:
        params: what would run.
        mfu: share of the peak that the network's products reach.
        peak: of the GPU, TFLOP/s.

    Raises:
        ValueError: the share or the peak is out of range, or a network does not fit its dataset.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"--mfu = {mfu} must lie in (0, 1]: it is the share of the peak that is reached")
    if not peak > 0:
        raise ValueError(f"--peak = {peak} must be positive: TFLOP/s of one GPU")
    rows = list(Plan.of(params).rows())
    table = Table("stage", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in (*COLUMNS, "GPU-hours"):
        table.add_column(column, justify="right", no_wrap=True)
    last = summed(rows)
    for row in [*rows, last]:
        figures = (row.download, row.disk, row.tokens, row.flops, row.hours(mfu, peak))
        cells = zip(WRITTEN, figures, strict=True)
        table.add_row(
            row.stage, *(at_least(write, figure) if row is last else write(figure) for write, figure in cells)
        )
    console = Console(width=WIDTH, markup=False, emoji=False, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines, "", *_basis(rows, mfu, peak), *_slow_precision(params)])


def _basis(rows: Sequence[Row], mfu: float, peak: float) -> list[str]:
    """What the figures rest on, and which are not known."""
    told = [
        f"GPU-hours: at {mfu:.0%} of {peak:g} TFLOP/s. FLOPs: the products of the networks, with the head's at every"
        " position; three forward passes an example in training. Sizes: those of data/, where it is there.",
        f"~ is an estimate, from the sizes of files, the catalogue's counts and {PIECE} characters a token of pieces."
        " Not counted: metrics, pictures of samples, the report, and DVC's cache, which takes as much disk again where"
        " the file system has no reflinks.",
    ]
    unknown = [f"{row.stage} ({', '.join(missing)})" for row in rows if (missing := _unknown(row))]
    if unknown:
        told.append(f"Not known (?), so that totals are what there is at least: {'; '.join(unknown)}.")
    else:
        told.append("Nothing is unknown.")
    return [textwrap.fill(line, WIDTH, break_on_hyphens=False) for line in told]


def _slow_precision(params: Params) -> list[str]:
    """Say which runs ask for bfloat16 where this machine is slow at it, which does not matter if they train elsewhere.

    A machine with a GPU is not measured: `mdpipe train` says it there.
    """
    runs = [name for name, run in params.runs.items() if run.hardware.precision == "bfloat16"]
    if not runs:
        return []
    import torch

    from mdpipe.training.peak import bfloat16_problem

    if torch.cuda.is_available() or not (problem := bfloat16_problem(torch.device("cpu"))):
        return []
    return [
        textwrap.fill(f"Trained here, without a GPU ({', '.join(runs)}): {problem}.", WIDTH, break_on_hyphens=False)
    ]


def _unknown(row: Row) -> list[str]:
    figures = (row.download, row.disk, row.tokens, row.flops)
    return [name for name, figure in zip(COLUMNS, figures, strict=True) if figure.unknown]
