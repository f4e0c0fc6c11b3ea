"""The claims of params.yaml: their measures, and the table of verdicts.

Shapes: S trainings, N examples, K samplers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mdpipe.params import Params
from mdpipe.params.claims import (
    BoundDifferenceConfig,
    DifferenceConfig,
    ExponentConfig,
    FIDConfig,
    MeasureConfig,
    Region,
    VarianceConfig,
    ZeroShotConfig,
    ZeroShotDifferenceConfig,
    ZeroShotGapConfig,
)
from mdpipe.reporting.markdown import Columns, format_measurement, format_number, markdown_table, round_by_error
from mdpipe.reporting.schemas import integers, numbers, texts, to_texts
from mdpipe.reporting.seeds import (
    Array,
    Evaluation,
    Measured,
    Totals,
    decide,
    difference_of_means,
    exponent,
    holm,
    mean_log_ratio,
    measure_bits,
    pair_trainings,
    variance_ratio,
)
from mdpipe.reporting.tables import round_floats

CLAIMS = {
    **texts("claim", "statement", "where", "published"),
    **numbers("published_value"),
    **texts("kind", "unit"),
    **numbers("value", "stderr", "stderr_seeds", "low", "high"),
    **integers("seeds"),
    **texts("expected"),
    **numbers("p", "p_holm"),
    **texts("verdict", "command"),
}
"""Columns of a row per claim. `low` and `high` are the ends of the 95 % interval; `stderr` and `stderr_seeds` of a
ratio are those of its logarithm times the ratio. A value that could not be estimated is null."""

DISPLAYED_CLAIMS: Columns = {
    "claim": "{statement}",
    "where": "{where}",
    "paper": lambda row: ("" if (value := row["published_value"]) is None else f"{value:g}: ") + row["published"],
    "ours": lambda row: "none" if row["value"] is None else format_measurement(row["value"], row["stderr"]),
    "95 % interval": lambda row: f"{_format_end(row, 'low')} to {_format_end(row, 'high')}",
    "agrees if": "{expected}",
    "verdict": "{verdict}",
    "Holm's p": "{p_holm:.2g}",
    "command": "{command}",
}
"""Columns of the table for people."""

UNITS = {"variance": "ratio", "fid": "ratio", "exponent": "exponent"}
"""Units of measures that are not in bits per token."""


@dataclass(frozen=True)
class Measures:
    """The measures of claims, from the results of trainings."""

    params: Params
    read_evaluations: Callable[[Sequence[str], str | None], Evaluation]
    """Return the nats of trainings on a source, or with None on the evaluated split."""
    read_fids: Callable[[str], Mapping[str, float]]
    """Return the FID of each sampler of a training, against the training images."""

    def measure(self, config: MeasureConfig) -> Measured:
        """Return the measure with its errors."""
        match config:
            case DifferenceConfig():
                return measure_bits(*self._differences(config, [None]))
            case ZeroShotDifferenceConfig():
                return measure_bits(*self._differences(config, self.params.zero_shot.sources))
            case ZeroShotGapConfig():
                zero_shot = self._differences(config, self.params.zero_shot.sources)
                return difference_of_means(zero_shot, self._differences(config, [None]))
            case BoundDifferenceConfig():
                totals, (first, second) = self._further_bounds(config.run, config.bound, config.baseline)
                return measure_bits(first.mean(2) - second.mean(2), totals.sizes, totals.clusters)
            case VarianceConfig():
                totals, bounds = self._further_bounds(config.run, config.bound, config.baseline)
                first, second = (bound[..., 0] - bound[..., 1] for bound in bounds)
                return variance_ratio(first, second, totals.clusters)
            case ExponentConfig():
                totals, (limit, *bounds) = self._further_bounds(config.run, config.baseline, *config.bounds)
                excess = np.stack([bound.mean(2) for bound in bounds]) - limit.mean(2)
                steps = [config.timesteps(self.params, name) or 1 for name in config.bounds]
                return exponent(excess, steps, totals.sizes, totals.clusters)
            case FIDConfig():
                trainings = pair_trainings(self.params, config.run, config.baseline)
                samplers = (config.samplers, config.baseline_samplers)
                first, second = (
                    np.array([[fids[name] for name in names] for fids in map(self.read_fids, runs)])
                    for runs, names in zip(trainings, samplers, strict=True)
                )
                return mean_log_ratio(first, second)
        raise NotImplementedError(config.kind)

    def _differences(self, config: MeasureConfig, sources: Iterable[str | None]) -> Totals:
        """Return the differences of two runs on all sources, None for the evaluated split; sources share no cluster."""
        parts: list[Totals] = []
        trainings = pair_trainings(self.params, config.run, config.baseline)
        for source in sources:
            totals, baseline = (self.read_evaluations(names, source).totals for names in trainings)
            first = parts[-1].clusters.max() + 1 if parts else 0
            parts.append(Totals(totals.nats - baseline.nats, totals.sizes, first + totals.clusters))
        return Totals(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))

    def _further_bounds(self, run: str, *names: str) -> tuple[Totals, list[Array]]:
        """Return the nats of a run, and the two estimates of each of these further bounds, (S, N, 2)."""
        (trainings,) = pair_trainings(self.params, run)
        evaluation, available = self.read_evaluations(trainings, None), list(self.params.runs[run].evaluate.bounds)
        return evaluation.totals, [evaluation.bounds[:, :, available.index(name)] for name in names]


def claims_table(measures: Measures) -> pl.DataFrame:
    """Return the verdict on every claim of params.yaml, columns `CLAIMS`."""
    rows = []
    for name, claim in measures.params.claims.items():
        measured = measures.measure(claim.measure)
        value, low, high = measured.value_and_interval
        scale = value if measured.is_log else 1.0
        decision = decide(measured, claim.expect.above, claim.expect.below)
        rows.append(
            {
                "claim": name,
                **claim.model_dump(include={"statement", "where", "published", "published_value"}),
                "kind": claim.measure.kind,
                "unit": UNITS.get(claim.measure.kind, "bits/token"),
                "value": value,
                "stderr": measured.stderr * scale,
                "stderr_seeds": measured.stderr_seeds * scale,
                "low": low,
                "high": high,
                "seeds": measured.seeds,
                "expected": _format_region(claim.expect),
                "p": decision.p,
                "verdict": decision.verdict,
                "command": _command(measures.params, claim.measure),
            }
        )
    table = round_floats(pl.DataFrame(rows, schema=CLAIMS), pl.col("value", "stderr", "stderr_seeds", "low", "high"))
    return table.with_columns(p_holm=pl.Series(holm(table["p"].to_list()), dtype=pl.Float64))


def claims_markdown(table: pl.DataFrame) -> str:
    """Return the table of claims in Markdown."""
    displayed = to_texts(table, DISPLAYED_CLAIMS).with_columns(command=pl.format("`{}`", "command"))
    is_numeric = [name in ("ours", "95 % interval", "Holm's p") for name in displayed.columns]
    return markdown_table(displayed.columns, displayed.rows(), is_numeric)


def _format_region(region: Region) -> str:
    """Return the region in words."""
    match region.above, region.below:
        case None, end:
            return f"below {end:g}"
        case end, None:
            return f"above {end:g}"
        case low, high:
            return f"{low:g} to {high:g}"


def _command(params: Params, measure: Any) -> str:
    """Return the command that makes the results of a claim and then the table."""
    runs = list(dict.fromkeys((measure.run, getattr(measure, "baseline", measure.run))))
    runs = [run for run in runs if run in params.runs]
    suffixes = [name.removeprefix(runs[0]) for name in params.replicates()[runs[0]]]
    trainings = (runs[0] if len(runs) == 1 else f"{{{','.join(runs)}}}") + f"{{{','.join(suffixes)}}}"
    stages = [f"evaluate@{trainings}"]
    if isinstance(measure, ZeroShotConfig):
        of_split = stages if isinstance(measure, ZeroShotGapConfig) else []
        stages = [*of_split, *(f"zero_shot@{trainings}-{source}" for source in params.zero_shot.sources)]
    elif isinstance(measure, FIDConfig):
        stages = [f"measure_images@{trainings}"]
    return f"snakemake {' '.join(stages)} report"


def _format_end(row: Mapping[str, Any], key: str) -> str:
    """Return an end of the interval with the digits of the value."""
    return round_by_error(row[key], row["stderr"])[0] if row["stderr"] else format_number(row[key])
