"""Changes of Snakemake's behavior, because DVC decides which stages run and what becomes of their outputs."""

from pathlib import Path
from typing import Any

import snakemake.api  # noqa: F401  First, because its modules import each other in a circle.
from snakemake.dag import DAG
from snakemake.jobs import Job
from snakemake.rules import Rule


def ignore_clock_skew() -> None:
    """Make Snakemake accept outputs that are older than an input, as after the clock was set back.

    Otherwise it would fail the job, although DVC has stored its results.
    """
    DAG.check_output_mtime = _do_nothing


def keep_outputs() -> None:
    """Have Snakemake leave the outputs of a stage in place when it starts the stage.

    DVC removes them itself, unless it finds the stage up to date. Without those that only git has (metrics), it would
    run the stage again in a clone whose run cache does not have them.
    """
    Job.remove_existing_output = _do_nothing


async def _do_nothing(*_: Any) -> None:
    pass


def require_no_benchmark(rule: Rule) -> None:
    """Have Snakemake accept that the benchmark file of a stage that is up to date is missing, as after `dvc pull`.

    It would run the stage named as a target only to write that file, which is not in git.
    """
    if not Path(rule.benchmark).exists():
        rule._benchmark = None  # Rules cannot be changed otherwise, and the directive must be a path.
