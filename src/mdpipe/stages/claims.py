"""The claims of params.yaml, measured by the results of the other stages; a part of the stage `report`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.artifacts.metrics import read_record
from mdpipe.params import Params
from mdpipe.params.claims import (
    BoundDifferenceConfig,
    Claim,
    DifferenceConfig,
    ExponentConfig,
    FIDConfig,
    MeasureConfig,
    Region,
    VarianceConfig,
    ZeroShotDifferenceConfig,
)
from mdpipe.pipeline import paths
from mdpipe.reporting.claims import Measured, exponent, holm, judge, mean_log_ratio, of_costs, variance_ratio
from mdpipe.reporting.markdown import format_measurement, format_number, markdown_table, round_by_error
from mdpipe.reporting.schemas import integers, numbers, texts
from mdpipe.reporting.tables import rounded

Array = NDArray[np.float64]
COST_COLUMNS = 3
"""Nats, tokens and cluster; those of further bounds follow."""
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
"""One row per claim. `low` and `high` are the ends of the 95 % interval; `stderr` and `stderr_seeds` of a ratio are
those of its logarithm times the ratio. A value that could not be estimated is null."""

READABLE = ("claim", "where", "paper", "ours", "95 % interval", "agrees if", "verdict", "Holm's p", "command")
"""Columns of the table for people."""

UNITS = {"variance": "ratio", "fid": "ratio", "exponent": "exponent"}
"""Units of measures that are not in bits per token."""


def claims_table(params: Params) -> pl.DataFrame:
    """Return the verdict on every claim of params.yaml, columns `CLAIMS`.

    Raises:
        ValueError: a result that a claim needs is missing or broken.
    """
    measured = [MEASURES[type(claim.measure)](params, claim.measure) for claim in params.claims.values()]
    judged = [
        judge(found, claim.expect.above, claim.expect.below)
        for found, claim in zip(measured, params.claims.values(), strict=True)
    ]
    adjusted = holm([verdict.p for verdict in judged])
    rows = [
        _row(name, params, claim, found) | {"p": verdict.p, "p_holm": p, "verdict": verdict.verdict}
        for (name, claim), found, verdict, p in zip(params.claims.items(), measured, judged, adjusted, strict=True)
    ]
    return pl.DataFrame(rows, schema=CLAIMS)


def readable_claims(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table of claims for people, all columns as text."""
    rows = []
    for row in table.iter_rows(named=True):
        published = "" if row["published_value"] is None else f"{row['published_value']:g}: "
        readable = {
            "claim": row["statement"],
            "where": row["where"],
            "paper": published + row["published"],
            "ours": "none" if row["value"] is None else format_measurement(row["value"], row["stderr"]),
            "95 % interval": "" if row["low"] is None else f"{_end(row, 'low')} to {_end(row, 'high')}",
            "agrees if": row["expected"],
            "verdict": row["verdict"],
            "Holm's p": f"{row['p_holm']:.2g}",
            "command": row["command"],
        }
        rows.append(readable)
    return pl.DataFrame(rows, schema=dict.fromkeys(READABLE, pl.String))


def claims_markdown(table: pl.DataFrame) -> str:
    """Return the table of claims in Markdown."""
    readable = readable_claims(table).with_columns(command=pl.format("`{}`", "command"))
    is_numeric = [name in ("ours", "95 % interval", "Holm's p") for name in READABLE]
    return markdown_table(list(READABLE), [list(row) for row in readable.rows()], is_numeric)


def read_costs(path: Path, hint: str) -> Array:
    """Return nats, tokens and cluster of each example, and the nats of further bounds: (N, 3 + 2 K).

    Raises:
        ValueError: the file is missing or broken.
    """
    costs: Array = open_array(path, hint)
    if costs.ndim != 2 or costs.shape[1] < COST_COLUMNS:
        raise ValueError(f"{path} should be (N, 3): nats, tokens and cluster; it is {costs.shape}; {hint}")
    return costs


def _difference(params: Params, measure: DifferenceConfig) -> Measured:
    costs = [_stacked(params, run, _evaluation) for run in (measure.run, measure.baseline)]
    return of_costs(costs[0][..., 0] - costs[1][..., 0], *_examples(costs[0]))


def _zero_shot(params: Params, measure: ZeroShotDifferenceConfig) -> Measured:
    differences, sizes, clusters, first = [], [], [], 0
    for source in params.zero_shot.sources:

        def of_source(name: str, source: str = source) -> Array:
            hint = f"run `dvc repro zero_shot@{name}-{source}` again"
            return read_costs(paths.zero_shot_evaluation(name, source), hint)

        costs = [_stacked(params, run, of_source) for run in (measure.run, measure.baseline)]
        differences.append(costs[0][..., 0] - costs[1][..., 0])
        of_examples = _examples(costs[0])
        sizes.append(of_examples[0])
        clusters.append(first + of_examples[1])
        first = int(clusters[-1].max()) + 1
    return of_costs(np.concatenate(differences, axis=1), np.concatenate(sizes), np.concatenate(clusters))


def _bound(params: Params, measure: BoundDifferenceConfig) -> Measured:
    costs = _stacked(params, measure.run, _evaluation)
    first, second = (_halves(params, measure.run, costs, name).mean(2) for name in (measure.bound, measure.baseline))
    return of_costs(first - second, *_examples(costs))


def _variance(params: Params, measure: VarianceConfig) -> Measured:
    costs = _stacked(params, measure.run, _evaluation)
    halves = [_halves(params, measure.run, costs, name) for name in (measure.bound, measure.baseline)]
    first, second = (half[..., 0] - half[..., 1] for half in halves)
    return variance_ratio(first, second, _examples(costs)[1])


def _exponent(params: Params, measure: ExponentConfig) -> Measured:
    costs = _stacked(params, measure.run, _evaluation)
    limit, *bounds = (_halves(params, measure.run, costs, name).mean(2) for name in (measure.baseline, *measure.bounds))
    steps = [measure.timesteps(params, name) or 1 for name in measure.bounds]
    return exponent(np.stack(bounds) - limit, steps, *_examples(costs))


def _fid(params: Params, measure: FIDConfig) -> Measured:
    first = _fids(params, measure.run, measure.samplers)
    return mean_log_ratio(first, _fids(params, measure.baseline, measure.baseline_samplers))


MEASURES: dict[type[MeasureConfig], Callable[[Params, Any], Measured]] = {
    DifferenceConfig: _difference,
    ZeroShotDifferenceConfig: _zero_shot,
    BoundDifferenceConfig: _bound,
    VarianceConfig: _variance,
    ExponentConfig: _exponent,
    FIDConfig: _fid,
}


def _trainings(params: Params, run: str) -> list[str]:
    """Return the names of a run's trainings by seed, so that those of two runs pair up."""
    return sorted(params.replicates()[run], key=params.seed_of)


def _stacked(params: Params, run: str, read: Callable[[str], Array]) -> Array:
    """Return the costs of all trainings of a run, (S, N, columns)."""
    return np.stack([read(name) for name in _trainings(params, run)])


def _evaluation(run: str) -> Array:
    return read_costs(paths.evaluation(run), f"run `dvc repro evaluate@{run}` again")


def _examples(costs: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens and cluster of each example, (N,), of costs (S, N, columns)."""
    sizes, clusters = costs[0, :, 1:COST_COLUMNS].T.astype(np.int64)
    return sizes, clusters


def _halves(params: Params, run: str, costs: Array, bound: str) -> Array:
    """Return the two estimates of one of a run's further bounds, (S, N, 2)."""
    at = COST_COLUMNS + 2 * list(params.runs[run].evaluate.bounds).index(bound)
    return costs[..., at : at + 2]


def _fids(params: Params, run: str, samplers: list[str]) -> Array:
    """Return the FID of a run's samplers, (S, K)."""
    found = []
    for name in _trainings(params, run):
        record = read_record(paths.record("image_quality", name))
        fid = {row["images"]: row["fid"] for row in record["rows"] if row["reference"] == REFERENCE}
        found.append([fid[sampler] for sampler in samplers])
    return np.array(found)


def _row(name: str, params: Params, claim: Claim, measured: Measured) -> dict[str, Any]:
    ends = [measured.shown(end) for end in measured.interval]
    value = measured.shown(measured.value)
    scale = value if measured.is_log else 1.0
    found = {"value": value, "stderr": measured.stderr * scale, "stderr_seeds": measured.stderr_seeds * scale}
    found |= dict(zip(("low", "high"), ends, strict=True))
    return {
        "claim": name,
        **claim.model_dump(include={"statement", "where", "published", "published_value"}),
        "kind": claim.measure.kind,
        "unit": UNITS.get(claim.measure.kind, "bits/token"),
        **{key: rounded(float(number)) for key, number in found.items()},
        "seeds": measured.seeds,
        "expected": _expected(claim.expect),
        "command": _command(params, claim.measure),
    }


def _expected(region: Region) -> str:
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
    if isinstance(measure, ZeroShotDifferenceConfig):
        stages = [f"zero_shot@{trainings}-{source}" for source in params.zero_shot.sources]
    elif isinstance(measure, FIDConfig):
        stages = [f"measure_images@{trainings}"]
    return f"snakemake {' '.join(stages)} report"


def _end(row: dict[str, Any], key: str) -> str:
    """Return an end of the interval with the digits of the value."""
    return round_by_error(row[key], row["stderr"])[0] if row["stderr"] else format_number(row[key])
