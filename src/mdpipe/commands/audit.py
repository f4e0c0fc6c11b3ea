"""`mdpipe audit`: whether the number of an objective is a bound, as a table of checks on sources of known entropy."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from mdpipe.console import WIDTH
from mdpipe.evaluation.audit import COUNTEREXAMPLES, DIGITS, Check, audit
from mdpipe.params import ParamsError, parse_assignments
from mdpipe.params.diffusion import ObjectiveConfig, ScheduleConfig, ScheduledConfig
from mdpipe.params.errors import problem_lines
from mdpipe.params.registry import KindConfig


def describe_kinds() -> str:
    """Return what can be audited, one per line."""
    kinds = {kind: _first_line(config) for kind, config in ObjectiveConfig.kinds.items()}
    examples = {name: example.reason for name, example in COUNTEREXAMPLES.items()}
    schedules = {kind: _first_line(config) for kind, config in ScheduleConfig.kinds.items()}
    width = max(map(len, [*kinds, *schedules, *examples]))
    return "\n".join(
        [
            "Objectives, and any added file of src/mdpipe/diffusion/objectives:",
            *(f"  {kind:{width}}  {meaning}" for kind, meaning in kinds.items()),
            "Schedules, under all objectives that have one, and any added file of src/mdpipe/diffusion/schedules:",
            *(f"  {kind:{width}}  {meaning}" for kind, meaning in schedules.items()),
            "Numbers that are not bounds, which the audit refuses:",
            *(f"  {name:{width}}  {reason}" for name, reason in examples.items()),
        ]
    )


def run_audit(kind: str | None, settings: Sequence[str]) -> None:
    """Audit an objective or a counterexample and print the checks; or all built-in objectives, in a line each.

    A schedule is audited under all built-in objectives that have one. The first failure ends the audit.
    """
    if kind is None and settings:
        raise ParamsError("--setting needs a KIND whose setting it is")
    given = {key: value for key, (_, value) in parse_assignments("--setting", settings).items()}
    built_in = {name: config for name, config in ObjectiveConfig.kinds.items() if _is_built_in(config)}
    if kind is None:
        audited = dict.fromkeys(built_in, given)
    elif kind in COUNTEREXAMPLES or ObjectiveConfig.find(kind):
        audited = {kind: given}
    elif ScheduleConfig.find(kind):
        schedule = {"schedule": {"kind": kind, **given}}
        for key in given:
            if key.startswith("schedule."):
                own = key.removeprefix("schedule.")
                raise ParamsError(f"--setting {key} repeats what {kind} is; write --setting {own}={given[key]}")
        audited = {name: schedule for name, config in built_in.items() if issubclass(config, ScheduledConfig)}
    else:
        hint = ObjectiveConfig.hint(kind, [*ObjectiveConfig.kinds, *ScheduleConfig.kinds, *COUNTEREXAMPLES])
        raise ParamsError(
            f"there is no objective, schedule or counterexample {kind!r}{hint}; `mdpipe audit --list` names all"
        )
    for name, stated in audited.items():
        checks, unit, reason = _checks(name, stated)
        if len(audited) == 1:
            Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(_table(name, unit, checks))
        failures = [check for check in checks if not check.passes]
        if failures:
            raise ValueError(
                f"{name} fails {len(failures)} of {len(checks)} checks: {_explain(failures, unit, reason)}"
            )
        typer.echo(f"{name} passes {len(checks)} checks: it is never below the entropy; {_how_tight(checks, unit)}")


def _checks(kind: str, given: dict[str, Any]) -> tuple[list[Check], str, str | None]:
    """Return the checks of a kind, their unit, and why they must fail if they must."""
    if kind not in COUNTEREXAMPLES:
        config = _parse(kind, given)
        return list(audit(config, given.keys() - {"kind"}, must_meet=_is_built_in(type(config)))), "bits/token", None
    if given:
        raise ParamsError(f"{kind} has no settings")
    example = COUNTEREXAMPLES[kind]
    return list(example.checks()), example.unit, example.reason


def _parse(kind: str, given: dict[str, Any]) -> ObjectiveConfig:
    config = ObjectiveConfig.find(kind)
    for key in given:
        if config is not None and key not in config.model_fields and (found := _part_with(config, key, given)):
            part, stated = found
            words = part.replace("_", " ")
            raise ParamsError(f'--setting {key} is a setting of the {words}; write --setting "{part}={stated}"')
    data = {"kind": kind, **given}
    try:
        return ObjectiveConfig.parse(data)
    except ValidationError as error:
        raise ParamsError("\n".join(problem_lines(error, data))) from None


def _part_with(config: type[ObjectiveConfig], key: str, given: dict[str, Any]) -> tuple[str, str] | None:
    """Return the part of an objective with a setting, `schedule.epsilon` or `epsilon`, and the part with this setting.

    None if no part has it. The part is of the given kind or of its default kind, if these have the setting.
    """
    section, _, name = key.rpartition(".")
    for part, field in config.model_fields.items():
        family = field.annotation
        if section not in ("", part) or not (isinstance(family, type) and issubclass(family, KindConfig)):
            continue
        for kind in (given.get(part), field.default.kind, *family.kinds):
            if isinstance(kind, str) and kind in family.kinds and name in family.kinds[kind].model_fields:
                return part, f"{{kind: {kind}, {name}: {given[key]}}}"
    return None


def _is_built_in(config: type[ObjectiveConfig]) -> bool:
    return config.__module__ == ObjectiveConfig.__module__


def _first_line(config: type[ObjectiveConfig]) -> str:
    return (config.__doc__ or "").partition("\n")[0]


def _table(kind: str, unit: str, checks: Sequence[Check]) -> Table:
    table = Table(title=f"{kind}, {unit}", title_justify="left", box=None, pad_edge=False)
    for heading in ("settings", "source", "denoiser"):
        table.add_column(heading, overflow="fold")
    for heading in ("entropy", "bound", "excess", "stderr"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        error = f"{check.bound.stderr:.1e}" if check.bound.stderr > 10**-DIGITS / 2 else "exact"
        found = check.entropy, check.bound.value, check.bound.value - check.entropy
        numbers = [*(f"{number:z.{DIGITS}f}" for number in found), error]
        style = None if check.passes else "bold red"
        table.add_row(check.setting, check.source, check.denoiser, *numbers, check.verdict, style=style)
    return table


def _explain(failures: Sequence[Check], unit: str, reason: str | None) -> str:
    """Return the worst failure in words, and why if it is known."""
    worst = max(failures, key=lambda check: (check.is_below, abs(check.bound.value - check.entropy)))
    where = f"{worst.source}{f' with {worst.setting}' if worst.setting else ''}"
    found = (
        f"on {where}, {worst.bound.value:.{DIGITS}f} {unit} ({worst.denoiser} denoiser), where the entropy is"
        f" {worst.entropy:.{DIGITS}f}"
    )
    if math.isnan(worst.bound.value - worst.bound.stderr):
        return f"{found}; a bound is a number"
    if not worst.is_below:
        return f"{found}; it should meet it, or fall to it as the number of steps doubles"
    return f"{found}: no bound can be below it" + (f"; {reason}" if reason else "")


def _how_tight(checks: Sequence[Check], unit: str) -> str:
    """Return how far the bound is above the entropy with exact conditionals: in the first setting, and in all."""
    exact = [check for check in checks if check.denoiser == "exact"]
    first = _largest_excess([check for check in exact if check.setting == exact[0].setting])
    largest = _largest_excess(exact)
    tight = f"at most {_format_excess(first)} {unit} above it with exact conditionals{_in_brackets(first)}"
    if _excess(largest) <= _excess(first):
        return tight
    return f"{tight}, and {_format_excess(largest)} in all settings{_in_brackets(largest)}"


def _largest_excess(checks: Sequence[Check]) -> Check:
    return max(checks, key=_excess)


def _excess(check: Check) -> float:
    return max(round(check.bound.value - check.entropy, 9), 0)


def _format_excess(check: Check) -> str:
    """Return the excess, rounded up."""
    return f"{math.ceil(_excess(check) * 10**DIGITS) / 10**DIGITS:g}"


def _in_brackets(check: Check) -> str:
    return check.setting and f" ({check.setting})"
