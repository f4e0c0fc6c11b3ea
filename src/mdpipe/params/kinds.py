"""Families of kinds: of a schedule, objective, network, sampler or optimizer, `kind` in params.yaml names one.

A kind is a configuration class, with the types, defaults and rules of its settings, and the class that is built from
it, which names its configuration in its first line: `class Transformer(Network, config=TransformerConfig)`. The
configurations of built-in kinds are in `mdpipe.params`, which is loaded without torch. A kind of one's own has both
in one file NAME.py of the family's package, and nothing else has to be changed.
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Self, Union, get_args

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from mdpipe.params.base import Config
from mdpipe.params.nearest import did_you_mean
from mdpipe.params.problems import Missing, refused


class KindConfig(Config):
    """Settings of one kind of a family; a family is a direct subclass that names its package."""

    package: ClassVar[str | None]
    """Where each kind has its file; None for a family that users cannot add to."""
    kinds: ClassVar[dict[str, type[Any]]]
    """The configurations of the family, by kind."""
    module: ClassVar[str | None] = None
    """File of the package with the class that is built from it; None for the file with the kind's name."""
    renamed_kinds: ClassVar[dict[str, str]] = {}
    """Kinds under the names that they had in earlier versions, with those of today."""

    kind: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()  # `__pydantic_init_subclass__` gets the arguments, when the fields are known.

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if kwargs.get("is_family"):
            cls.package, cls.kinds = kwargs.get("package"), {}
        elif literal := get_args(cls.model_fields["kind"].annotation):
            known = cls.kinds.setdefault(literal[0], cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"{cls.__name__} needs a `kind` of its own: {literal[0]!r} is that of {known.__name__}")
            cls.kinds[literal[0]] = cls  # Also where a module is loaded again.

    @classmethod
    def find(cls, kind: str) -> "type[Self] | None":
        """Return the configuration of a kind, from the family's package if it is not built in; None if there is none.

        Raises:
            ValueError: the file of the kind has no configuration of this kind.
        """
        if kind not in cls.kinds and cls.package is not None and _is_module(cls.package, kind):
            import_module(f"{cls.package}.{kind}")
            if kind not in cls.kinds:
                raise ValueError(f"{cls.package}.{kind} has no {cls.__name__} whose kind is {kind!r}")
        return cls.kinds.get(kind)

    @classmethod
    def hint(cls, kind: str, allowed: Iterable[str]) -> str:
        """Return what may be meant by a kind that does not exist, as the end of an error; "" if nothing is near."""
        if kind in cls.renamed_kinds:
            return f"; {kind} is now called {cls.renamed_kinds[kind]}"
        return did_you_mean(kind, allowed)

    @classmethod
    def parse(cls, data: Any, *others: str) -> Self:
        """Return the configuration that a value of params.yaml means: a mapping with `kind`, or a bare kind.

        Args:
            data: the value.
            *others: kinds that the key takes besides those of the family, for the error.

        Raises:
            ValidationError: the value names no kind of the family, or its settings break a rule.
        """
        if isinstance(data, cls):
            return data
        settings = {"kind": data} if isinstance(data, str) else data
        is_mapping = isinstance(settings, dict)
        kind = settings.get("kind", Missing("kind")) if is_mapping else None
        try:
            config = cls.find(kind) if isinstance(kind, str) else None
        except ValueError as error:
            raise _problem(("kind",), kind, str(error)) from None
        if config is not None:
            return config.model_validate(settings)
        allowed = [*cls.kinds, *others]
        rule = f"one of {', '.join(allowed)}" + (
            f", or the name of an added file of {cls.package}" if cls.package else ""
        )
        if not is_mapping:
            raise _problem((), data, f"must be a kind, or a mapping whose `kind` is {rule}", kind="kind")
        # `objective: {kind: {kind: md4}}` means md4.
        name = kind.get("kind") if isinstance(kind, dict) else kind
        hint = cls.hint(name, allowed) if isinstance(name, str) else ""
        raise _problem(() if isinstance(data, str) else ("kind",), kind, f"must be {rule}{hint}")


class AnyKind:
    """Annotates a family: a value is the configuration of any of its kinds."""

    def __init__(self, family: type[KindConfig]) -> None:
        self.family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # The union of the built-in kinds is for the JSON Schema; `parse` finds the one that is meant.
        union = Union[tuple(self.family.kinds.values())]  # type: ignore[valid-type]  # noqa: UP007
        built_in = handler.generate_schema(Annotated[union, Field(discriminator="kind")])

        def validate(data: Any, _: ValidatorFunctionWrapHandler) -> KindConfig:
            return self.family.parse(data)

        return core_schema.no_info_wrap_validator_function(
            validate,
            built_in,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda config: config.model_dump()),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        built_in = handler(schema)
        if self.family.package is None:
            return {"anyOf": [built_in, {"enum": sorted(self.family.kinds)}]}
        added = {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"not": {"enum": sorted(self.family.kinds)}}},
        }
        return {"anyOf": [built_in, added, {"type": "string"}]}


_implementations: dict[type[KindConfig], type] = {}


class Configurable:
    """Base of the classes that are built from a configuration."""

    config_class: ClassVar[type[KindConfig]]

    def __init_subclass__(cls, config: type[KindConfig] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if config is not None:
            cls.config_class = config
            _implementations[config] = cls


def implementation(config: KindConfig) -> Callable[..., Any]:
    """Return the class that is built from a configuration.

    Raises:
        ValueError: the file of the kind has no such class.
    """
    module = f"{config.package}.{config.module or config.kind}"
    if type(config) not in _implementations:
        import_module(module)
    if type(config) not in _implementations:
        raise ValueError(f"{module} has no class with config={type(config).__name__}")
    return _implementations[type(config)]


def _is_module(package: str, name: str) -> bool:
    """Return True if the package has a module of this name; it is not loaded to find out."""
    return name.isidentifier() and find_spec(f"{package}.{name}") is not None


def _problem(where: tuple[str, ...], value: Any, rule: str, kind: str = "rule") -> ValidationError:
    return ValidationError.from_exception_data(
        "params", [InitErrorDetails(type=refused(rule, kind), loc=where, input=value)]
    )
