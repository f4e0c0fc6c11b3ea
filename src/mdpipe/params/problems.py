"""How a rule of params.yaml that pydantic does not know, or that spans several keys, is reported when it is broken."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from mdpipe.params.nearest import did_you_mean


@dataclass(frozen=True)
class Missing:
    """Stands for the value of a key that a mapping lacks: no type takes it, so each says what it would take."""

    key: str
    note: str | None = None
    """What the value is for."""
    may_be_null: bool = False


def refused(rule: str, kind: str = "rule") -> PydanticCustomError:
    """Return the error that a validator raises where a value breaks a rule."""
    return PydanticCustomError(kind, "{rule}", {"rule": rule})


def again(found: ErrorDetails) -> InitErrorDetails:
    """Return a problem that pydantic has reported, to be reported with others."""
    kind, context = found["type"], found.get("ctx", {})
    is_known = kind in get_args(ErrorType)
    return InitErrorDetails(
        type=kind if is_known else refused(found["msg"], kind), loc=found["loc"], input=found["input"], ctx=context
    )


def problem(where: tuple[int | str, ...], value: Any, rule: str) -> InitErrorDetails:
    """Return the problem that the key at a path has a value that breaks a rule."""
    return InitErrorDetails(type=refused(rule), loc=where, input=value)


def no_such(where: tuple[int | str, ...], value: str, table: str, allowed: Iterable[str]) -> InitErrorDetails:
    """Return the problem that the key at a path names something that is not in a table."""
    names = list(allowed)
    return problem(where, value, f"not one of {table}{did_you_mean(value, names)}; allowed: {listed(names)}")


def listed(names: Iterable[str]) -> str:
    """Return names as an error message lists them."""
    return ", ".join(sorted(names)) or "none is defined"
