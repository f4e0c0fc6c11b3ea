"""Sections of several kinds in params.yaml, and kinds of one's own: a file that a user has added to a package.

The kinds that come with mdpipe have typed sections, which are read without loading torch. Of any other kind the section
is read off the class's constructor: a key for every argument, of the annotated type.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, get_args, get_type_hints

from pydantic import (
    BaseModel,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from mdpipe.kinds import classes_in, is_module
from mdpipe.params.base import Section
from mdpipe.params.nearest import did_you_mean
from mdpipe.params.problems import Missing, refused


class ByKind:
    """Annotates a union of sections that the value of `key` tells apart, to say what is wrong with that value.

    Args:
        key: whose value is the kind.
        others: kinds that are allowed in the union's place.
    """

    def __init__(self, key: str, *others: str) -> None:
        self.key, self.others = key, others

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known = kinds_in(source, self.key)

        def validate(data: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
            require_kind(data, self.key, [*known, *self.others])
            return built_in(data)

        return core_schema.no_info_wrap_validator_function(validate, handler(source))


class OrOwn:
    """Annotates a union of sections that `key` tells apart: beside them it may be the section of one's own kind.

    Args:
        key: whose value is the kind.
        package: where kinds have their files.
        base: name of the class in the package's base.py that they inherit.
        section: the section of a kind, from its name and its class.
    """

    def __init__(self, key: str, package: str, base: str, section: Callable[[str, type], type[Section]]) -> None:
        self.key, self.package, self.base, self.section = key, package, base, section

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known = kinds_in(source, self.key)

        def validate(data: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
            kind = data.get(self.key) if isinstance(data, dict) else None
            if not isinstance(kind, str) or kind in known or not is_module(self.package, kind):
                require_kind(data, self.key, known, or_added=f"the name of an added file of {self.package}")
                return built_in(data)
            # By name, and only now: this loads torch.
            base = getattr(import_module(f"{self.package}.base"), self.base)
            found = classes_in(self.package, kind, base)
            if len(found) != 1:
                rule = f"{kind}.py has {len(found)} classes that inherit {self.base}, and must have one"
                raise _at((self.key,), kind, f"{rule}; kinds that come with mdpipe: {', '.join(known)}")
            return self.section(kind, found[0]).model_validate(data)

        return core_schema.no_info_wrap_validator_function(
            validate,
            handler(source),
            # Without this, a section of one's own would be none of the union's.
            serialization=core_schema.plain_serializer_function_ser_schema(lambda section: section.model_dump()),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        built_in = handler(schema)
        known = sorted(built_in["discriminator"]["mapping"])
        own = {"type": "object", "required": [self.key], "properties": {self.key: {"not": {"enum": known}}}}
        return {"anyOf": [built_in, own]}


def kinds_in(union: Any, key: str) -> list[str]:
    """Return the values of `key` by which the sections of a union are told apart, in their order."""
    return [get_args(section.model_fields[key].annotation)[0] for section in get_args(union)]


def require_kind(
    data: Any, key: str, known: Sequence[str], *, within: tuple[str, ...] = (), or_added: str | None = None
) -> None:
    """Pass if the section names one of the known kinds.

    Args:
        data: the section.
        key: whose value is the kind.
        known: all kinds.
        within: where the section is, below what is being checked.
        or_added: what else a kind may be.

    Raises:
        ValidationError: it is no mapping, or the key is missing or has another value.
    """
    if isinstance(data, BaseModel):
        return
    allowed = f"one of {', '.join(known)}" + f", or {or_added}" * (or_added is not None)
    if not isinstance(data, dict):
        hint = did_you_mean(data, known) if isinstance(data, str) else ""
        written = f"; write {{{key}: {data}}}, with its settings" if data in known else hint
        rule = f"must be a mapping whose `{key}` is {allowed}{written}"
        raise _at(within, data, rule, kind="kind")
    value = data.get(key, Missing(key))
    if value not in known:
        # `objective: {kind: md4}`, as other sections are written, means md4.
        name = value.get("kind") if isinstance(value, dict) else value
        hint = did_you_mean(name, known) if isinstance(name, str) else ""
        raise _at((*within, key), value, f"must be {allowed}{hint}")


def _at(where: tuple[str, ...], value: Any, rule: str, kind: str = "rule") -> ValidationError:
    return ValidationError.from_exception_data(
        "params", [InitErrorDetails(type=refused(rule, kind), loc=where, input=value)]
    )


def section_of(
    owner: type,
    given: Collection[str],
    *,
    named: Mapping[str, Any] | None = None,
    base: type[Section] = Section,
    types: Mapping[str, Any] | None = None,
) -> type[Section]:
    """The section of a class: a key for every argument of its constructor but for those `given` by the pipeline.

    Args:
        owner: the class.
        given: arguments that are no settings.
        named: keys that are no arguments, with their types.
        base: what the section inherits, keys included.
        types: of arguments that params.yaml has in another form.
    """
    hints = get_type_hints(vars(owner)["__init__"])
    arguments = [name for name in inspect.signature(owner).parameters if name not in given]
    settings = {name: (types or {}).get(name, hints[name]) for name in arguments if name not in base.model_fields}
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in {**(named or {}), **settings}.items()}
    return create_model(owner.__name__, __base__=base, **fields)


def own_kind(kind: str) -> dict[str, Any]:
    """The key `kind`, of this value alone."""
    return {"kind": Literal[kind]}
