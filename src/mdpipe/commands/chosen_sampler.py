"""The sampler of `mdpipe generate` and `infill`: set on the command line, in params.yaml, or by its defaults."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from pydantic import ValidationError

from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.samplers.build import build_sampler, sampler_class
from mdpipe.params import PARAMS_FILE, load_params, parse_value
from mdpipe.params.nearest import did_you_mean
from mdpipe.params.sampling import KINDS, SampleSettings, fits, samplers_for, section_of_sampler
from mdpipe.params.wording import rule_of

PREFERRED = "reveal_first"
"""The sampler where neither the command line nor params.yaml has one and the objective has none of its own: exact, and
the fastest."""

STEPS = 128
"""The length of a grid where neither has one."""

GRID = "cosine"
"""The grid of a sampler of which params.yaml says nothing."""


def chosen_sampler(
    run: str, objective: str, kind: str | None, steps: int | None, grid: str | None, assignments: Sequence[str]
) -> Sampler[Any]:
    """Build the sampler; what the command line does not set is as in params.yaml, or else the sampler's default.

    Args:
        run: name of the run.
        objective: kind of its objective.
        kind: of sampler, or None for the run's in params.yaml, or else the fastest exact one.
        steps: of a sampler with a grid, or None for the run's.
        grid: of such a sampler, or None.
        assignments: "key=value", settings of the sampler with values as in params.yaml.

    Raises:
        ValueError: the sampler does not exist or does not fit the objective, or a setting is unknown, wrong or missing.
    """
    allowed = samplers_for(objective)
    own = settings_of(run)
    if kind is None and own is not None and fits(own.sampler.kind, objective):
        kind = own.sampler.kind
    if kind is None:
        kind = PREFERRED if PREFERRED in allowed else allowed[0]
    if not fits(kind, objective):
        hint = "" if kind in KINDS else did_you_mean(kind, allowed)
        raise ValueError(f"--sampler {kind!r} does not fit a run of {objective}{hint}; allowed: {', '.join(allowed)}")
    section = section_of_sampler(kind)
    known = [key for key in section.model_fields if key != "kind"]
    given = _given(assignments, kind, known)
    if "grid" not in known:
        _say_ignored(kind, {"--steps": steps, "--grid": grid})
    elif grid is not None:
        given.setdefault("grid", (f"--grid {grid}", grid))
    defaults = {"grid": GRID} | {
        field.name: field.default for field in fields(sampler_class(kind)) if field.default is not MISSING
    }
    settings = {key: value for key, value in defaults.items() if key in known} | _of_params(run, kind)
    settings |= {key: value for key, (_, value) in given.items()}
    try:
        described = section.model_validate({"kind": kind, **settings}).model_dump(exclude={"kind"})
    except ValidationError as error:
        raise ValueError(_refusal(error, kind, given)) from None
    if "grid" in known:
        described["steps"] = steps or (own and own.steps) or STEPS
    return build_sampler(kind, **described)


def settings_of(run: str) -> SampleSettings | None:
    """Return how params.yaml has the run sampled, or None where it does not have the run."""
    params = load_params() if PARAMS_FILE.exists() else None
    return params.runs[run].sample if params is not None and run in params.runs else None


def _say_ignored(kind: str, options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value is not None:
            sys.stderr.write(f"mdpipe: {option} {value} is ignored: the sampler {kind} has no grid of steps\n")


def _given(assignments: Sequence[str], kind: str, known: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return how each key was set on the command line, and to which value."""
    given: dict[str, tuple[str, Any]] = {}
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign:
            raise ValueError(f"--set {assignment} sets nothing; write --set KEY=VALUE")
        if key not in known:
            raise ValueError(
                f"--set {assignment}: the sampler {kind} has no setting {key!r}{did_you_mean(key, known)};"
                f" it has: {', '.join(known) or 'none'}"
            )
        given[key] = (f"--set {key}={text}", parse_value(text, name=f"--set {assignment}"))
    return given


def _of_params(run: str, kind: str) -> dict[str, Any]:
    """Return the settings that params.yaml has for this kind: those of the run, else those of the comparison."""
    if not PARAMS_FILE.exists():
        return {}
    params = load_params()
    sections = [params.runs[run].sample.sampler] if run in params.runs else []
    found = [section for section in [*sections, *params.samplers.samplers] if section.kind == kind]
    return found[0].model_dump(exclude={"kind"}) if found else {}


def _refusal(error: ValidationError, kind: str, given: Mapping[str, tuple[str, Any]]) -> str:
    problem = error.errors(include_url=False)[0]
    key = str(problem["loc"][0])
    if key not in given:
        return f"the sampler {kind} needs its setting {key!r}; give it with --set {key}=VALUE"
    option, _ = given[key]
    rule = rule_of(problem["type"], problem["msg"], problem.get("ctx", {}), problem["input"])
    return f"{option} is refused: {rule}"
