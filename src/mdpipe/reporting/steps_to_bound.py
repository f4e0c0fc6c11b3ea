"""The steps after which runs first reach a bound, as a table.

Validations of a training have the same examples, times and masks at every step and for every run, so curves of two
trainings compare without the noise of either. Two ways to train are compared seed by seed.

Shapes: V validations.
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
from mdpipe.reporting.markdown import Columns, format_measurement
from mdpipe.reporting.schemas import integers, numbers, texts
from mdpipe.reporting.seeds import Measured, decide, mean_log_ratio
from mdpipe.reporting.tables import round_floats

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

DISPLAYED_STEPS: Columns = {
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
        run: Its name.
        changed_from: The row above that it is a change of; empty for the baseline.
        changes: The settings that differ from that row's.
        train_steps: Steps of each training.
        steps: Steps to the bound of each training; None if it is not reached.
        cpu_seconds: CPU seconds of each training; empty if they are not known.
        final: Bound of the final models, with errors over seeds and examples; of one training without them.
        difference: The same minus that of the baseline, in pairs; None for the baseline and without `seeds`.
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
    def steps_to_bound(self) -> list[float]:
        """Return the steps to the bound of all trainings; empty if one of them does not reach it."""
        found = [steps for steps in self.steps if steps is not None]
        return found if len(found) == len(self.steps) else []

    @property
    def cpu_seconds_to_bound(self) -> list[float]:
        """Return the CPU seconds to the bound of all trainings, in proportion to the steps; empty if unknown."""
        pairs = zip(self.steps_to_bound, self.cpu_seconds, strict=False)
        return [seconds * steps / self.train_steps for steps, seconds in pairs]


def first_crossing(steps: Sequence[float], bits: Sequence[float], bound: float) -> float | None:
    """Return the step at which a curve first reaches a bound, on the line between two validations.

    Args:
        steps: Steps of the validations, (V,), increasing.
        bits: Bounds of the validations, (V,).
        bound: The bound to reach, in the same unit.

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
    flat, flat_other = (
        pl.json_normalize(dict(each), infer_schema_length=None).row(0, named=True) for each in (settings, other)
    )
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in flat.items()
        if key not in flat_other or flat_other[key] != value
    )


def steps_table(runs: Sequence[RunSteps]) -> pl.DataFrame:
    """Return one row per run with the columns `STEPS_TO_BOUND`; the first run is the baseline."""
    by_name = {run.run: run for run in runs}
    rows = [_row(run, runs[0], by_name.get(run.changed_from, runs[0])) for run in runs]
    return round_floats(pl.DataFrame(rows, schema=STEPS_TO_BOUND))


def _row(run: RunSteps, baseline: RunSteps, changed: RunSteps) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": run.run,
        "changed_from": run.changed_from or None,
        "changes": run.changes,
        "train_steps": run.train_steps,
        "seeds": len(run.steps),
        "reached": sum(steps is not None for steps in run.steps),
        "value": run.final,
    }
    if isinstance(run.final, SeedsEstimate):
        row |= {"value": run.final.value, "stderr": run.final.stderr}
    for name, values in (("steps", run.steps_to_bound), ("cpu_seconds", run.cpu_seconds_to_bound)):
        if values:
            error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            row |= {name: fmean(values), f"{name}_stderr": error}
    ratios = {
        "steps_ratio": (run.steps_to_bound, baseline.steps_to_bound),
        "steps_ratio_to_changed": (run.steps_to_bound, changed.steps_to_bound),
        "cpu_ratio": (run.cpu_seconds_to_bound, baseline.cpu_seconds_to_bound),
    }
    compared = {
        name: mean_log_ratio(*(np.array(one)[:, None] for one in pair))
        for name, pair in ratios.items()
        if run is not baseline and all(pair)
    }
    if run.difference is not None:
        compared["difference"] = Measured.from_estimate(run.difference, len(run.steps))
        row["difference_p"] = decide(compared["difference"], None, 0.0).p
    for name, measured in compared.items():
        row |= zip(_interval(name), measured.value_and_interval, strict=True)
    return row


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
