"""The table of steps to a bound: after how many steps, and CPU seconds, each run first reaches it.

Validations of a training have the same examples and draws at every step and for every run, so curves of two trainings
compare without the noise of either. Two ways to train are compared seed by seed. Shapes: V validations, S seeds.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import polars as pl

from mdpipe.evaluation.estimate import SeedsEstimate
from mdpipe.reporting.claims import Measured, judge, mean_log_ratio
from mdpipe.reporting.markdown import Columns, format_measurement, format_rows
from mdpipe.reporting.schemas import integers, numbers, texts
from mdpipe.reporting.tables import rounded

RATIO_DIGITS = 3
"""Significant digits of ratios in the table to read."""


def _interval(name: str) -> tuple[str, str, str]:
    """Return the columns of an estimate and the ends of its interval."""
    return name, f"{name}_low", f"{name}_high"


STEPS_TO_BOUND = {
    **texts("run", "changed_from", "changes"),
    **integers("train_steps", "seeds", "reached"),
    **numbers("steps", "steps_stderr"),
    **numbers(*_interval("steps_ratio"), *_interval("steps_ratio_to_changed")),
    **numbers("cpu_seconds", "cpu_seconds_stderr"),
    **numbers(*_interval("cpu_ratio")),
    **numbers("value", "stderr"),
    **numbers(*_interval("difference"), "difference_p"),
}
"""The columns: `reached` counts the seeds that reach the bound; without all of them, no steps are given. Ratios are to
the baseline, or to the row `changed_from`. `value` is the bound of the final model in bits per token of the evaluated
split, `difference` is to the baseline's; intervals have 95 %, and `difference_p` is two-sided."""

READABLE: Columns = {
    "run": "{run}",
    "changed from": lambda row: row["changed_from"] or "",
    "changes": "{changes}",
    "trained for": "{train_steps:,}",
    "seeds": "{seeds}",
    "steps to the bound": lambda row: _format_steps(row),
    "ratio": lambda row: _with_interval(row, "steps_ratio"),
    "ratio to changed": lambda row: _with_interval(row, "steps_ratio_to_changed"),
    "CPU seconds": lambda row: _with_error(row, "cpu_seconds"),
    "CPU ratio": lambda row: _with_interval(row, "cpu_ratio"),
    "final bits": lambda row: format_measurement(row["value"], row["stderr"]),
    "final difference": lambda row: _with_interval(row, "difference"),
    "p": "{difference_p:.1g}",
}
"""Columns of the table for people."""


@dataclass(frozen=True)
class RunSteps:
    """The trainings of a run, in the order of the baseline's seeds.

    Attributes:
        run: its name.
        changed_from: the row above that it is a change of; empty for the baseline.
        changes: the settings that differ from that row's.
        train_steps: steps of each training.
        steps: steps to the bound of each training; None if it is not reached.
        cpu_seconds: CPU seconds of each training; empty if they are not known.
        final: bound of the final models, with errors over seeds and examples; of one training without them.
        difference: the same minus that of the baseline, in pairs; None for the baseline and without `seeds`.
    """

    run: str
    changed_from: str
    changes: str
    train_steps: int
    steps: Sequence[float | None]
    cpu_seconds: Sequence[float]
    final: SeedsEstimate | float
    difference: SeedsEstimate | None

    @property
    def reached(self) -> list[float]:
        """The steps to the bound of all trainings; empty if one of them does not reach it."""
        found = [steps for steps in self.steps if steps is not None]
        return found if len(found) == len(self.steps) else []

    @property
    def cpu_seconds_to_bound(self) -> list[float]:
        """The CPU seconds to the bound of all trainings, in proportion to the steps; empty if they are not known."""
        pairs = zip(self.reached, self.cpu_seconds, strict=False)
        return [seconds * steps / self.train_steps for steps, seconds in pairs]


def first_crossing(steps: Sequence[float], bits: Sequence[float], bound: float) -> float | None:
    """Return the step at which a curve first reaches a bound, on the line between two validations.

    Args:
        steps: of the validations, (V,), increasing.
        bits: of the validations, (V,).
        bound: in the same unit.

    Returns:
        None if all validations are above the bound; the first step if none is above it before.
    """
    reached = next((at for at, value in enumerate(bits) if value <= bound), None)
    if not reached:
        return None if reached is None else steps[0]
    before, after = bits[reached - 1], bits[reached]
    fraction = (before - bound) / (before - after)
    return steps[reached - 1] + fraction * (steps[reached] - steps[reached - 1])


def changed_settings(settings: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the settings that differ from another run's, `train.steps 300, network.qk_norm true`.

    A setting that only the other run has follows from the `kind` that differs, and is left out.
    """
    flat, flat_other = _flatten(settings), _flatten(other)
    changed = {key: value for key, value in flat.items() if key not in flat_other or flat_other[key] != value}
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in changed.items()
    )


def steps_table(runs: Sequence[RunSteps]) -> pl.DataFrame:
    """Return one row per run with the columns `STEPS_TO_BOUND`; the first run is the baseline."""
    by_name = {run.run: run for run in runs}
    rows = [_row(run, runs[0], by_name.get(run.changed_from, runs[0])) for run in runs]
    return pl.DataFrame(rows, schema=STEPS_TO_BOUND, orient="row")


def readable_steps(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with each measurement and its error or interval as one text; empty columns are left out."""
    cells = format_rows(table.iter_rows(named=True), READABLE)
    frame = pl.DataFrame(cells, schema=dict.fromkeys(READABLE, pl.String), orient="row")
    return frame.select(column for column in frame if column.is_empty() or any(column))


def _row(run: RunSteps, baseline: RunSteps, changed: RunSteps) -> dict[str, Any]:
    seconds, reached = run.cpu_seconds_to_bound, run.reached
    row = {
        "run": run.run,
        "changed_from": run.changed_from or None,
        "changes": run.changes,
        "train_steps": run.train_steps,
        "seeds": len(run.steps),
        "reached": sum(steps is not None for steps in run.steps),
        "steps": fmean(reached) if reached else None,
        "steps_stderr": _stderr(reached),
        "cpu_seconds": fmean(seconds) if seconds else None,
        "cpu_seconds_stderr": _stderr(seconds),
        "value": run.final if isinstance(run.final, float) else run.final.value,
        "stderr": None if isinstance(run.final, float) else run.final.stderr,
    }
    ratios = {
        "steps_ratio": (reached, baseline.reached),
        "steps_ratio_to_changed": (reached, changed.reached),
        "cpu_ratio": (seconds, baseline.cpu_seconds_to_bound),
    }
    compared = {
        name: mean_log_ratio(*(np.array(one)[:, None] for one in pair))
        for name, pair in ratios.items()
        if run is not baseline and all(pair)
    }
    if run.difference is not None:
        compared["difference"] = Measured.of(run.difference, len(run.steps))
        row["difference_p"] = judge(compared["difference"], None, 0.0).p
    for name, measured in compared.items():
        row |= zip(_interval(name), measured.shown, strict=True)
    return {name: rounded(row.get(name)) for name in STEPS_TO_BOUND}


def _stderr(values: Sequence[float]) -> float | None:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _format_steps(row: Mapping[str, Any]) -> str:
    """Return the steps to the bound, or how many trainings reach it."""
    if row["reached"] < row["seeds"]:
        return f"reached by {row['reached']} of {row['seeds']}" if row["reached"] else "never"
    return _with_error(row, "steps")


def _with_error(row: Mapping[str, Any], name: str) -> str:
    return format_measurement(row[name], row[f"{name}_stderr"])


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    """Return `0.412 (0.35 to 0.48)`."""
    value, *ends = [f"{row[key]:.{RATIO_DIGITS}g}" for key in _interval(name) if key == name or row[key] is not None]
    return f"{value} ({' to '.join(ends)})" if ends else value


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
