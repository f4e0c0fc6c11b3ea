"""The claims of params.yaml, measured by the results of the other stages; a part of the stage `report`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.artifacts.files import read_record
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
from mdpipe.pipeline import paths
from mdpipe.reporting.markdown import Columns, format_measurement, format_number, markdown_table, round_by_error
from mdpipe.reporting.schemas import integers, numbers, texts, to_texts
from mdpipe.reporting.seeds import (
    Measured,
    Totals,
    decide,
    difference_of_means,
    exponent,
    holm,
    mean_log_ratio,
    measure_bits,
    variance_ratio,
)
from mdpipe.reporting.tables import round_floats

Array = NDArray[np.float64]
COST_COLUMNS = 3
"""Number of columns before the estimates of further bounds: nats, tokens and cluster."""
REFERENCE = "training"
"""The images that FID compares samples with."""

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

DISPLAYED: Columns = {
    "claim": "{statement}",
    "where": "{where}",
    "paper": lambda row: _format_published(row["published_value"]) + row["published"],
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


def claims_table(params: Params) -> pl.DataFrame:
    """Return the verdict on every claim of params.yaml, columns `CLAIMS`.

    Raises:
        ValueError: A result that a claim needs is missing or broken.
    """
    rows = []
    for name, claim in params.claims.items():
        measured = MEASURES[type(claim.measure)](params, claim.measure)
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
                "command": _command(params, claim.measure),
            }
        )
    table = round_floats(pl.DataFrame(rows, schema=CLAIMS), pl.col("value", "stderr", "stderr_seeds", "low", "high"))
    return table.with_columns(p_holm=pl.Series(holm(table["p"].to_list()), dtype=pl.Float64))


def claims_to_display(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table of claims for people, all columns as text."""
    return to_texts(table, DISPLAYED)


def claims_markdown(table: pl.DataFrame) -> str:
    """Return the table of claims in Markdown."""
    displayed = claims_to_display(table).with_columns(command=pl.format("`{}`", "command"))
    is_numeric = [name in ("ours", "95 % interval", "Holm's p") for name in DISPLAYED]
    return markdown_table(displayed.columns, displayed.rows(), is_numeric)


class Evaluation(NamedTuple):
    """Nats of a run's trainings, and of the further bounds of `evaluate.bounds`."""

    totals: Totals
    bounds: Array
    """Nats by two independent estimates of each of K further bounds, (S, N, K, 2)."""


def read_evaluations(trainings: Sequence[str], source: str | None = None) -> Evaluation:
    """Return the nats of the evaluated split, or of a source that the runs were not trained on.

    Raises:
        ValueError: A file is missing or broken.
    """
    stacked = np.stack([_read_evaluation(run, source) for run in trainings])
    sizes, clusters = stacked[0, :, 1:COST_COLUMNS].T.astype(np.int64)
    bounds = stacked[..., COST_COLUMNS:].reshape(*stacked.shape[:2], -1, 2)
    return Evaluation(Totals(stacked[..., 0], sizes, clusters), bounds)


def _read_evaluation(run: str, source: str | None) -> Array:
    stage, path = f"evaluate@{run}", paths.evaluation(run)
    if source is not None:
        stage, path = f"zero_shot@{run}-{source}", paths.zero_shot_evaluation(run, source)
    hint = f"run `dvc repro {stage}` again"
    columns: Array = open_array(path, hint)
    if columns.ndim != 2 or columns.shape[1] < COST_COLUMNS:
        raise ValueError(f"{path} should have columns of nats, tokens and cluster, but it is {columns.shape}; {hint}")
    return columns


def _difference(params: Params, measure: DifferenceConfig) -> Measured:
    return measure_bits(*_differences(params, measure, [None]))


def _zero_shot(params: Params, measure: ZeroShotDifferenceConfig) -> Measured:
    return measure_bits(*_differences(params, measure, params.zero_shot.sources))


def _zero_shot_gap(params: Params, measure: ZeroShotGapConfig) -> Measured:
    zero_shot = _differences(params, measure, params.zero_shot.sources)
    return difference_of_means(zero_shot, _differences(params, measure, [None]))


def _differences(params: Params, measure: MeasureConfig, sources: Iterable[str | None]) -> Totals:
    """Return the differences of two runs on all sources, None for the evaluated split; sources share no cluster."""
    parts: list[Totals] = []
    for source in sources:
        totals, baseline = (
            read_evaluations(_trainings(params, run), source).totals for run in (measure.run, measure.baseline)
        )
        first = parts[-1].clusters.max() + 1 if parts else 0
        parts.append(Totals(totals.nats - baseline.nats, totals.sizes, first + totals.clusters))
    return Totals(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))


def _bound(params: Params, measure: BoundDifferenceConfig) -> Measured:
    totals, (first, second) = _further_bounds(params, measure.run, measure.bound, measure.baseline)
    return measure_bits(first.mean(2) - second.mean(2), totals.sizes, totals.clusters)


def _variance(params: Params, measure: VarianceConfig) -> Measured:
    totals, bounds = _further_bounds(params, measure.run, measure.bound, measure.baseline)
    first, second = (bound[..., 0] - bound[..., 1] for bound in bounds)
    return variance_ratio(first, second, totals.clusters)


def _exponent(params: Params, measure: ExponentConfig) -> Measured:
    totals, (limit, *bounds) = _further_bounds(params, measure.run, measure.baseline, *measure.bounds)
    excess = np.stack([bound.mean(2) for bound in bounds]) - limit.mean(2)
    steps = [measure.timesteps(params, name) or 1 for name in measure.bounds]
    return exponent(excess, steps, totals.sizes, totals.clusters)


def _fid(params: Params, measure: FIDConfig) -> Measured:
    first = _fids(params, measure.run, measure.samplers)
    return mean_log_ratio(first, _fids(params, measure.baseline, measure.baseline_samplers))


MEASURES: dict[type[MeasureConfig], Callable[[Params, Any], Measured]] = {
    DifferenceConfig: _difference,
    ZeroShotDifferenceConfig: _zero_shot,
    ZeroShotGapConfig: _zero_shot_gap,
    BoundDifferenceConfig: _bound,
    VarianceConfig: _variance,
    ExponentConfig: _exponent,
    FIDConfig: _fid,
}


def _trainings(params: Params, run: str) -> list[str]:
    """Return the names of a run's trainings by seed, so that those of two runs pair up."""
    return sorted(params.replicates()[run], key=params.seed_of)


def _further_bounds(params: Params, run: str, *names: str) -> tuple[Totals, list[Array]]:
    """Return the nats of a run, and the two estimates of each of these further bounds, (S, N, 2)."""
    evaluation, known = read_evaluations(_trainings(params, run)), list(params.runs[run].evaluate.bounds)
    return evaluation.totals, [evaluation.bounds[:, :, known.index(name)] for name in names]


def _fids(params: Params, run: str, samplers: list[str]) -> Array:
    """Return the FID of a run's samplers, (S, K)."""
    found = []
    for name in _trainings(params, run):
        record = read_record(paths.record("image_quality", name))
        fid = {row["images"]: row["fid"] for row in record["rows"] if row["reference"] == REFERENCE}
        found.append([fid[sampler] for sampler in samplers])
    return np.array(found)


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
    """Return what makes the results of a claim, with everything before them, and then the table."""
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


def _format_published(value: float | None) -> str:
    return "" if value is None else f"{value:g}: "


def _format_end(row: Mapping[str, Any], key: str) -> str:
    """Return an end of the interval with the digits of the value."""
    return round_by_error(row[key], row["stderr"])[0] if row["stderr"] else format_number(row[key])
