"""Sections of several kinds in params.yaml that users cannot add to."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from mdpipe.params.nearest import did_you_mean
from mdpipe.params.problems import Missing, refused


class ByKind:
    """Annotates a union of sections that the value of `key` tells apart, to say what is wrong with that value.

    Args:
        key: whose value is the kind.
        others: kinds that are allowed in the union's place.
        renamed: kinds under the names that they had in earlier versions, with those of today.
    """

    def __init__(self, key: str, *others: str, renamed: Mapping[str, str] | None = None) -> None:
        self.key, self.others, self.renamed = key, others, renamed or {}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known = kinds_in(source, self.key)

        def validate(data: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
            require_kind(data, self.key, [*known, *self.others], renamed=self.renamed)
            return built_in(data)

        return core_schema.no_info_wrap_validator_function(validate, handler(source))


def kinds_in(union: Any, key: str) -> list[str]:
    """Return the values of `key` that distinguish the sections of a union, in their order."""
    return [get_args(section.model_fields[key].annotation)[0] for section in get_args(union)]


def require_kind(
    data: Any, key: str, known: Sequence[str], *, within: tuple[str, ...] = (), renamed: Mapping[str, str]
) -> None:
    """Pass if the section names one of the known kinds.

    Args:
        data: the section.
        key: whose value is the kind.
        known: all kinds.
        within: where the section is, below what is being checked.
        renamed: kinds under the names that they had in earlier versions, with those of today.

    Raises:
        ValidationError: it is no mapping, or the key is missing or has another value.
    """
    if isinstance(data, BaseModel):
        return
    allowed = f"one of {', '.join(known)}"

    def hint_for(name: Any) -> str:
        if not isinstance(name, str):
            return ""
        return f"; {name} is now called {renamed[name]}" if name in renamed else did_you_mean(name, known)

    if not isinstance(data, dict):
        hint = hint_for(data)
        written = f"; write {{{key}: {data}}}, with its settings" if data in known else hint
        rule = f"must be a mapping whose `{key}` is {allowed}{written}"
        raise _at(within, data, rule, kind="kind")
    value = data.get(key, Missing(key))
    if value not in known:
        # `objective: {kind: md4}`, as other sections are written, means md4.
        name = value.get("kind") if isinstance(value, dict) else value
        raise _at((*within, key), value, f"must be {allowed}{hint_for(name)}")


def _at(where: tuple[str, ...], value: Any, rule: str, kind: str = "rule") -> ValidationError:
    return ValidationError.from_exception_data(
        "params", [InitErrorDetails(type=refused(rule, kind), loc=where, input=value)]
    )
