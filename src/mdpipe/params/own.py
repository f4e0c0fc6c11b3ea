"""Kinds of one's own in params.yaml: a file that a user has added to a package, with the settings its class takes.

The kinds that come with mdpipe have typed sections, which are read without loading torch. Of any other kind the section
is read off the class's constructor: a key for every argument, of the annotated type.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any, Literal, get_args, get_type_hints

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidatorFunctionWrapHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mdpipe.kinds import find_kind, is_module
from mdpipe.params.base import Section


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
        known = {get_args(section.model_fields[self.key].annotation)[0] for section in get_args(source)}

        def validate(data: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
            kind = data.get(self.key) if isinstance(data, dict) else None
            if not isinstance(kind, str) or kind in known or not is_module(self.package, kind):
                return built_in(data)
            # By name, and only now: this loads torch.
            base = getattr(import_module(f"{self.package}.base"), self.base)
            return self.section(kind, find_kind(self.package, kind, base, self.key)).model_validate(data)

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
