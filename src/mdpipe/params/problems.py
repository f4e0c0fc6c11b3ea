"""How a rule of params.yaml that spans several keys is told when it is broken."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError


def problem(where: tuple[int | str, ...], value: Any, rule: str) -> InitErrorDetails:
    """The key at a path has a value that breaks a rule."""
    return InitErrorDetails(type=PydanticCustomError("rule", "{rule}", {"rule": rule}), loc=where, input=value)


def no_such(where: tuple[int | str, ...], value: str, table: str, allowed: Iterable[str]) -> InitErrorDetails:
    """The key at a path names something that is not in a table."""
    return problem(where, value, f"not one of {table}; allowed: {listed(allowed)}")


def listed(names: Iterable[str]) -> str:
    """Names as an error message lists them."""
    return ", ".join(sorted(names)) or "none is defined"
