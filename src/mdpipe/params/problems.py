"""How a rule of params.yaml that spans several keys is told when it is broken."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError

from mdpipe.params.nearest import did_you_mean


def problem(where: tuple[int | str, ...], value: Any, rule: str) -> InitErrorDetails:
    """The key at a path has a value that breaks a rule."""
    return InitErrorDetails(type=PydanticCustomError("rule", "{rule}", {"rule": rule}), loc=where, input=value)


def no_such(where: tuple[int | str, ...], value: str, table: str, allowed: Iterable[str]) -> InitErrorDetails:
    """The key at a path names something that is not in a table."""
    names = list(allowed)
    return problem(where, value, f"not one of {table}{did_you_mean(value, names)}; allowed: {listed(names)}")


def listed(names: Iterable[str]) -> str:
    """Names as an error message lists them."""
    return ", ".join(sorted(names)) or "none is defined"
