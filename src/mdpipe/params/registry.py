"""Base classes of the sections of params.yaml, and families of kinds, from which the key `kind` selects one.

A kind has a configuration class, with the types, defaults and rules of its settings. For schedules, objectives,
networks and samplers, another class is built from it and names it, `class Transformer(Network,
config=TransformerConfig)`. The configurations of built-in kinds are in `mdpipe.params`, which does not import torch. A
user's kind has both classes in one file NAME.py of the family's package, and needs no other change.
"""

import ast
import inspect
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mdpipe.params.errors import ALLOWED, BrokenRules, Keys, Missing, did_you_mean, errors_at, make_error
from mdpipe.params.fields import KEYS_WITHOUT_EFFECT

if TYPE_CHECKING:
    from mdpipe.params.root import Params


class Config(BaseModel):
    """A section of params.yaml. All its problems are reported at once, and no value is converted."""

    renamed: ClassVar[dict[str, str]] = {}
    """New names of keys, by their names in earlier versions; new names that the class does not have are ignored."""
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {}
    """New values of keys, as YAML has them, by their values in earlier versions."""

    # No `use_attribute_docstrings`: parsing all classes would take a quarter of the start-up time of every command.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse settings that DVC would take for unchanged.

        Raises:
            TypeError: The class has one of them.
        """
        super().__pydantic_init_subclass__()
        if ignored := sorted(KEYS_WITHOUT_EFFECT & cls.model_fields.keys()):
            raise TypeError(f"DVC's run cache ignores keys called {ignored[0]}; rename this setting of {cls.__name__}")

    def broken_rules(self) -> BrokenRules:
        """Yield the rules between settings that are broken, each with the path of the key to report."""
        yield from ()

    def problems(self, params: "Params") -> BrokenRules:  # noqa: ARG002
        """Yield what does not fit other sections of params.yaml, each with the path of the key."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _name_wrong_keys(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> "Config":
        if isinstance(data, BaseModel):
            return cast("Config", handler(data))
        if not isinstance(data, dict):
            raise make_error(f"must be a mapping with the keys {', '.join(cls.model_fields)}", kind="section")
        # Validation then fails with the field's own rule.
        missing = {
            key: Missing(key, cls.descriptions().get(key), type(None) in get_args(field.annotation))
            for key, field in cls.model_fields.items()
            if field.is_required() and key not in data
        }
        known = missing | {key: value for key, value in data.items() if key in cls.model_fields}
        unknown = {key: value for key, value in data.items() if key not in known}
        problems: list[tuple[Keys, Any, PydanticCustomError]] = [
            ((key,), value, make_error(f"{value} is now called {new}"))
            for key, value in known.items()
            if (new := cls._new_value(key, value))
        ]
        if unknown:
            problems.insert(0, ((), data, make_error(cls._unknown_message(unknown), "unknown_keys")))
        if not problems:
            return cast("Config", handler(known))
        reported = [keys for keys, _, _ in problems]
        try:
            handler(known)
        except ValidationError as error:
            problems += [
                (found["loc"], found["input"], make_error(found["msg"], found["type"], found.get("ctx", {})))
                for found in error.errors()
                if found["loc"] not in reported
                and not (unknown and found["input"] in missing.values())  # The unknown key may be its misspelling.
            ]
        raise errors_at(problems)

    @classmethod
    def _new_value(cls, key: str, value: Any) -> str | None:
        """Return what a value of an earlier version is called now, or None if it has its name."""
        return cls.renamed_values.get(key, {}).get(value) if isinstance(value, str) else None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result = handler(schema)
        properties = handler.resolve_ref_schema(result).get("properties", {})
        for key, description in cls.descriptions().items():
            properties[key].setdefault("description", description)
        return result

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """Return the docstrings below the fields, including inherited ones, and the descriptions of annotations."""
        texts: dict[str, str] = {}
        for base in reversed([base for base in cls.__mro__ if issubclass(base, Config)]):
            texts |= attribute_docstrings(base.__module__).get(base.__qualname__.rpartition(".")[2], {})
        texts |= {key: field.description for key, field in cls.model_fields.items() if field.description}
        return {key: text for key, text in texts.items() if key in cls.model_fields}

    @model_validator(mode="after")
    def _report_broken_rules(self) -> Self:
        if problems := [(keys, self._value_at(keys), make_error(rule)) for keys, rule in self.broken_rules()]:
            raise errors_at(problems)
        return self

    def _value_at(self, keys: Keys) -> Any:
        """Return the value at a path of keys; for a key without a value, the key."""
        value: Any = self
        for key in keys:
            found = getattr(value, str(key)) if isinstance(value, BaseModel) else value[key]
            value = key if found is None and isinstance(value, dict) else found
        return value

    @classmethod
    def _unknown_message(cls, unknown: dict[Any, Any]) -> str:
        new = {old: name for old, name in cls.renamed.items() if name.partition(":")[0] in cls.model_fields}
        for old, name in new.items():
            if value := cls._new_value(name, unknown.get(old)):
                new[old] = f"{name}: {value}"
        keys = [
            f"{key!r}, now `{new[key]}`" if key in new else f"{key!r}{did_you_mean(str(key), cls.model_fields)}"
            for key in unknown
        ]
        allowed = ", ".join(cls.model_fields) or "none"
        return f"unknown key{'s' * (len(unknown) > 1)} {', '.join(keys)}{ALLOWED}{allowed}"


@cache
def attribute_docstrings(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings below the attributes of all classes of a loaded module, by class and attribute."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, below in pairwise(node.body):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found.setdefault(node.name, {})[name] = inspect.cleandoc(text)
    return found


class KindConfig(Config):
    """Settings of one kind.

    A family is a direct subclass, which names the package with a file per kind unless users cannot extend it:
    `class NetworkConfig(KindConfig, package="mdpipe.networks")`. Its subclasses that state a `kind: Literal["NAME"]`
    are its kinds; the others hold what several kinds share, and a setting of such a type takes all kinds that inherit
    it.
    """

    package: ClassVar[str | None]
    """The package with a file per kind; None for a family that users cannot extend."""
    kinds: ClassVar[dict[str, type[Any]]]
    """The configurations of the family, by kind."""
    module: ClassVar[str | None] = None
    """Module of the package with the class that is built from it; None for the module with the kind's name."""
    renamed_kinds: ClassVar[dict[str, str]] = {}
    """New names of kinds, by their names in earlier versions."""
    names_elsewhere: ClassVar[dict[str, str]] = {}
    """Kinds, with a note, by the names that papers and other code give them, in lowercase with _ for -."""

    kind: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()  # The arguments go to `__pydantic_init_subclass__`, when the fields are known.

    @classmethod
    def __pydantic_init_subclass__(cls, package: str | None = None, module: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.module = module
        if KindConfig in cls.__bases__:
            cls.package, cls.kinds = package, {}
        for kind in cls._own_kind():
            known = cls.kinds.setdefault(kind, cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"{cls.__name__} and {known.__name__} have the same `kind`, {kind!r}")
            cls.kinds[kind] = cls  # The newer class, if a module is loaded again.

    @classmethod
    def _own_kind(cls) -> tuple[str, ...]:
        """Return the kind of this class; empty for a family and for a class of what several kinds share."""
        return get_args(cls.model_fields["kind"].annotation)

    @classmethod
    def find(cls, kind: str) -> "type[Self] | None":
        """Return the configuration class of a kind, loaded from the family's package if needed; None if there is none.

        Raises:
            ValueError: The file of the kind cannot be imported, or lacks the configuration, the class built from it or
                one of its methods.
        """
        module = f"{cls.package}.{kind}"
        if kind not in cls.kinds and cls.package is not None and kind.isidentifier() and find_spec(module) is not None:
            _import_added(module)
            if kind not in cls.kinds:
                raise ValueError(f"{module} has no {cls.__name__} whose kind is {kind!r}")
        found = cls.kinds.get(kind)
        if found is not None and found.__module__ == module:
            _require_implementation(found, module)
        return found

    @classmethod
    def hint(cls, kind: str, allowed: Iterable[str]) -> str:
        """Return the end of the error for an unknown kind, which suggests a similar one; "" if there is none."""
        if kind in cls.renamed_kinds:
            return f"; {kind} is now called {cls.renamed_kinds[kind]}"
        if (here := cls.names_elsewhere.get(kind.lower().replace("-", "_"))) is not None:
            return f"; {kind} is {here}"
        return did_you_mean(kind, allowed)

    @classmethod
    def added_kinds(cls) -> list[str]:
        """Return the kinds that files of the package define, by their `kind: Literal["NAME"]`; nothing is imported."""
        spec = find_spec(cls.package) if cls.package else None
        files = Path(spec.origin).parent.glob("*.py") if spec and spec.origin else ()
        return [file.stem for file in files if f'kind: Literal["{file.stem}"]' in file.read_text(encoding="utf-8")]

    @classmethod
    def class_of(cls, data: Any, *where: str) -> type[Self]:
        """Return the configuration class for a value of params.yaml: a mapping with `kind`, or a bare kind.

        Args:
            data: The value.
            *where: The path of its key, relative to the section that is validated.

        Raises:
            ValidationError: The value names no kind that inherits this class.
        """
        if isinstance(data, cls):
            return type(data)
        # A missing tokenizer may be of any kind of the family: it decides which other keys its dataset has.
        allowed = [kind for kind, one in cls.kinds.items() if issubclass(one, cls) or isinstance(data, Missing)]
        added = f", or the name of an added file of {cls.package}" if cls.package else ""
        rule = f"one of {', '.join(allowed)}{added}"
        if not isinstance(data, dict | str):
            stated = f"must be a kind, or a mapping whose `kind` is {rule}"
            raise errors_at([(where, data, make_error(stated, "kind"))])
        kind, keys = (data.get("kind", Missing("kind")), (*where, "kind")) if isinstance(data, dict) else (data, where)
        try:
            if isinstance(kind, str) and (found := cls.find(kind)) and issubclass(found, cls):
                return found
        except ValueError as error:
            raise errors_at([(keys, kind, make_error(str(error)))]) from None
        # For `objective: {kind: {kind: md4}}`, the hint is about md4.
        name = kind.get("kind") if isinstance(kind, dict) else kind
        hint = cls.hint(name, [*allowed, *cls.added_kinds()]) if isinstance(name, str) else ""
        raise errors_at([(keys, kind, make_error(f"must be {rule}{hint}"))])

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Return the configuration for a value of params.yaml: a mapping with `kind`, or a bare kind.

        Raises:
            ValidationError: The value names no kind that inherits this class, or its settings break a rule.
        """
        if isinstance(data, cls):
            return data
        return cls.class_of(data).model_validate({"kind": data} if isinstance(data, str) else data)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls._own_kind():
            return handler(source)
        dump = core_schema.plain_serializer_function_ser_schema(lambda config: config.model_dump())
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=dump)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if cls._own_kind():
            result = super().__get_pydantic_json_schema__(schema, handler)
            resolved = handler.resolve_ref_schema(result)
            resolved["required"] = ["kind", *resolved.get("required", [])]  # although it has a default in Python
            return result
        built_in = {
            kind: config
            for kind, config in cls.kinds.items()
            if issubclass(config, cls) and config.__module__ == cls.__module__
        }
        for config in built_in.values():
            config.model_rebuild()  # Its schema is built lazily.
        schemas = {kind: config.__pydantic_core_schema__ for kind, config in built_in.items()}
        choices = [handler(core_schema.tagged_union_schema(schemas, discriminator="kind"))]
        bare = [  # kinds whose name is enough, since every setting has a default
            kind
            for kind, config in built_in.items()
            if not any(field.is_required() for field in config.model_fields.values())
        ]
        if cls.package:
            added = {"kind": {"not": {"enum": sorted(built_in)}}}
            choices += [{"type": "object", "required": ["kind"], "properties": added}, {"type": "string"}]
        elif bare:
            choices.append({"enum": bare})
        return {"anyOf": choices} if len(choices) > 1 else choices[0]


_implementations: dict[type[KindConfig], type] = {}


class Configurable:
    """Base class of everything that is built from a configuration."""

    config_class: ClassVar[type[KindConfig]]

    def __init_subclass__(cls, config: type[KindConfig] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if config is not None:
            cls.config_class = config
            _implementations[config] = cls

    @classmethod
    def build(cls, config: KindConfig, *args: Any, **kwargs: Any) -> Self:
        """Call the class that is built from a configuration, with it and further arguments.

        Raises:
            ValueError: The file of the kind has no such class, or it lacks a method.
        """
        module = f"{config.package}.{config.module or config.kind}"
        if type(config) not in _implementations:
            import_module(module)
        _require_implementation(type(config), module)
        built: Self = _implementations[type(config)](config, *args, **kwargs)
        return built


def _require_implementation(config: type[KindConfig], module: str) -> None:
    if config not in _implementations:
        raise ValueError(f"{module} has no class with config={config.__name__}")
    found = _implementations[config]
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"{module}: class {found.__name__} lacks the method {', '.join(missing)}")


def _import_added(module: str) -> None:
    """Import a file that a user added.

    Raises:
        ValueError: It fails; the message has the line of the file and the error.
    """
    try:
        import_module(module)
    except Exception as error:  # Whatever the file raises.
        frames = walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_globals.get("__name__") == module]
        where = f"in line {lines[-1]}, " if lines else ""  # A SyntaxError states it in its message.
        raise ValueError(f"{module} cannot be imported: {where}{type(error).__name__}: {error}") from error
