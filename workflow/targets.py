"""Check the targets of `snakemake TARGET` before they are planned, and explain which ones no stage makes."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import snakemake.api  # noqa: F401 (before its parts, which import each other in a circle)
from snakemake.exceptions import MissingRuleException
from snakemake.workflow import Workflow

from mdpipe.messages import printable_lines, without_secrets
from mdpipe.params import Params
from mdpipe.params.errors import did_you_mean
from mdpipe.pipeline.preflight import missing_paths
from workflow.graph import Stage, inputs_of

ALL = "all"
"""The rule of the Snakefile that makes everything; the default."""

_execute = Workflow.execute


def exit_with(error: Exception) -> NoReturn:
    """Exit with the message only: Snakemake would print the exception's type and location before it."""
    sys.exit(f"error: {printable_lines(without_secrets(str(error)))}")


def check_targets(params: Params, stages: list[Stage]) -> None:
    """Have Snakemake in this process check its targets before it runs or dry-runs them.

    It skips a stage with a missing input if the outputs are there, although DVC calls the stage stale.
    """

    def execute(self: Workflow, *args: Any, **kwargs: Any) -> None:
        targets = self.dag_settings.targets
        try:
            require_dependencies(params, needed_stages(targets, stages), stages)
        except ValueError as error:
            exit_with(error)
        try:
            _execute(self, *args, **kwargs)
        except MissingRuleException:
            if (unknown := next(unknown_targets(targets, stages), None)) is None:
                raise
            names = (*(stage.name for stage in stages), *_makers(stages))
            hint = did_you_mean(unknown, names)
            exit_with(ValueError(f"no stage makes {unknown!r}{hint}; `mdpipe check` lists the stages"))

    Workflow.execute = execute


def needed_stages(targets: Iterable[str], stages: list[Stage]) -> list[Stage]:
    """Return the stages that make the targets, and those that these depend on; without targets, all stages."""
    makers = _makers(stages)
    named = {stage.name: stage for stage in stages}
    requested = set(map(_normalized, targets))
    if not requested or ALL in requested:
        return stages
    waiting = [named.get(target) or makers.get(target) for target in requested]
    needed: set[str] = set()
    while waiting:
        stage = waiting.pop()
        if stage is not None and stage.name not in needed:
            needed.add(stage.name)
            waiting += map(makers.get, inputs_of(stage, stages))
    return [stage for stage in stages if stage.name in needed]


def require_dependencies(params: Params, needed: list[Stage], stages: list[Stage]) -> None:
    """Raise ValueError with a line for each dependency of the needed stages that is missing and that no stage makes."""
    if lines := list(dict.fromkeys(_missing(params, needed, stages))):
        raise ValueError("\n".join(lines))


def unknown_targets(targets: Iterable[str], stages: list[Stage]) -> Iterator[str]:
    """Yield targets that are neither a stage, nor made by one, nor a file."""
    known = {ALL, *(stage.name for stage in stages), *_makers(stages)}
    yield from (name for name in map(_normalized, targets) if name not in known and not Path(name).exists())


def _missing(params: Params, needed: list[Stage], stages: list[Stage]) -> Iterator[str]:
    makers = _makers(stages)
    for stage in needed:
        kind, _, name = stage.name.partition("@")
        for path in inputs_of(stage, stages):
            if path in makers or Path(path).exists():
                continue
            if kind == "report" and not params.runs:
                yield "params.yaml has no run to report on; ask for stages by name, as `snakemake encode@DATASET` does"
            elif kind == "download" and (lines := list(missing_paths(params, [name]))):
                yield from lines
            else:
                yield f"{stage.name} depends on {path}, which does not exist; put it back"


def _makers(stages: Iterable[Stage]) -> dict[str, Stage]:
    return {output: stage for stage in stages for output in stage.outputs}


def _normalized(target: str) -> str:
    return os.path.relpath(target)
