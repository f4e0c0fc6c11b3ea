"""Base classes of the sections of params.yaml, and families of kinds, from which the key `kind` selects one.

A kind has a configuration class, with the types, defaults and rules of its settings. For schedules, objectives,
networks and samplers, another class is built from it and names it, `class Transformer(Network,
config=TransformerConfig)`. The configurations of built-in kinds are in `mdpipe.params`, which does not import torch. A
user's kind has both classes in one file NAME.py of the family's package, and needs no other change.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, Any, ClassVar, Self, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mdpipe.params.errors import NAME_PATTERN, RUN_PATTERN, BrokenRules, Keys, Missing, did_you_mean, errors_at, refused

MAX_NAME_LENGTH = 64
"""File names contain the name and its stage; file systems allow 255 bytes, some 143."""
DEVICES = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))}
"""Reserved file names on Windows: a repository with such files could not be cloned there."""
KEYS_WITHOUT_EFFECT = {"size", "nfiles"}
"""Keys that DVC's run cache leaves out of what it compares, at any depth: after a change of their values it would
restore the outputs of the former ones (`_get_cache_hash` of dvc/stage/cache.py)."""
MAX_PATH_BYTES, MAX_FILE_NAME_BYTES = 4095, 255
"""Limits of file systems for a path and for each of its parts."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _is_free(name: str) -> str:
    if name in DEVICES:
        raise ValueError("names a device on Windows; choose another name")
    if name in KEYS_WITHOUT_EFFECT:
        raise ValueError("is a key that DVC's run cache ignores; choose another name")
    return name


def _is_fit_for_engines(path: str) -> str:
    if not path or path != path.strip() or set(path) & set("\t\n"):
        raise ValueError("a path is not empty and has no spaces around it, no tabs and no line breaks")
    if set(path) & set("{}"):
        raise ValueError("Snakemake takes braces in a path for a wildcard; rename the folder or file, or link to it")
    if "://" in path:
        raise ValueError("must be a local path, which DVC watches; use the kinds url and huggingface for downloads")
    if path.endswith(".dvc") or path.rpartition("/")[2] in ("dvc.yaml", "dvc.lock"):
        raise ValueError("DVC does not accept its own files as dependencies; rename it")
    if len(path.encode()) > MAX_PATH_BYTES or max(map(len, path.encode().split(b"/"))) > MAX_FILE_NAME_BYTES:
        raise ValueError(f"the parts of a path have at most {MAX_FILE_NAME_BYTES} bytes each")
    return path


def _is_mapping_of_names(names: Any) -> Any:
    if isinstance(names, list | str):
        listed = ", ".join(map(str, names)) if isinstance(names, list) else names
        raise refused(f"must be a mapping of names without values; write {{{listed}}}")
    return names


def _are_distinct(entries: list[Any]) -> list[Any]:
    duplicates = [entry for index, entry in enumerate(entries) if entry in entries[:index]]
    if duplicates:
        raise ValueError(f"{duplicates[0]} is there a second time; remove one")
    return entries


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH), AfterValidator(_is_free)]
"""Name of a source, dataset or run: part of file names and of DVC's stage names, in which `-` and `@` are special."""
RunName = Annotated[str, Field(pattern=RUN_PATTERN, max_length=MAX_NAME_LENGTH), AfterValidator(_is_free)]
"""Name of a run, or NAME-seedN of one of the further trainings that its `seeds` ask for."""
MappingOfNames = BeforeValidator(_is_mapping_of_names)
"""A mapping of names; the error for a list or a single name says how to write it."""
RunNames = Annotated[dict[RunName, None], MappingOfNames]
"""Names of runs as keys without values, `{chars_md4, digits}`, over which DVC's `foreach` and `matrix` iterate."""
WatchedPath = Annotated[str, AfterValidator(_is_fit_for_engines)]
"""Path of a file or folder that both engines watch."""
Distinct = AfterValidator(_are_distinct)
"""A list without duplicates: two stages or rows would have the same name."""

FORMS = {str: "a text", dict: "a mapping", list: "a list", bool: "a truth value", int: "a number"}
"""Tags of the members of unions that differ by the YAML type of the value. No tag is a valid name or key."""


def by_form(rule: str) -> Discriminator:
    """Return a discriminator of union members by their tags in `FORMS`; values of other types break the rule."""
    return Discriminator(lambda value: FORMS.get(type(value)), custom_error_type="rule", custom_error_message=rule)


class Config(BaseModel):
    """A section of params.yaml. All its problems are reported at once, and no value is converted."""

    renamed: ClassVar[dict[str, str]] = {}
    """New names of keys, by their names in earlier versions; new names that the class does not have are ignored."""

    # No `use_attribute_docstrings`: parsing all classes would take a quarter of the start-up time of every command.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse settings that DVC would take for unchanged.

        Raises:
            TypeError: the class has one of them.
        """
        super().__pydantic_init_subclass__()
        if ignored := sorted(KEYS_WITHOUT_EFFECT & cls.model_fields.keys()):
            raise TypeError(f"DVC's run cache ignores keys called {ignored[0]}; rename this setting of {cls.__name__}")

    def broken_rules(self) -> BrokenRules:
        """Yield the rules between settings that are broken, each with the path of the key to report."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _name_wrong_keys(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> "Config":
        if isinstance(data, BaseModel):
            return cast("Config", handler(data))
        if not isinstance(data, dict):
            raise refused(f"must be a mapping with the keys {', '.join(cls.model_fields)}", kind="section")
        # Validation then fails with the field's own rule.
        missing = {
            key: Missing(key, cls.descriptions().get(key), type(None) in get_args(field.annotation))
            for key, field in cls.model_fields.items()
            if field.is_required() and key not in data
        }
        known = missing | {key: value for key, value in data.items() if key in cls.model_fields}
        unknown = [key for key in data if key not in known]
        if not unknown:
            return cast("Config", handler(known))
        problems: list[tuple[Keys, Any, PydanticCustomError]]
        problems = [((), data, refused(cls._unknown_message(unknown), "unknown_keys"))]
        try:
            handler(known)
        except ValidationError as error:
            problems += [
                (found["loc"], found["input"], refused(found["msg"], found["type"], found.get("ctx", {})))
                for found in error.errors()
                if found["input"] not in missing.values()  # The unknown key may be its misspelling.
            ]
        raise errors_at(problems)

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
        if problems := [(keys, self._value_at(keys), refused(rule)) for keys, rule in self.broken_rules()]:
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
    def _unknown_message(cls, unknown: list[Any]) -> str:
        new = {old: name for old, name in cls.renamed.items() if name.partition(":")[0] in cls.model_fields}
        keys = [
            f"{key!r}, now `{new[key]}`" if key in new else f"{key!r}{did_you_mean(str(key), cls.model_fields)}"
            for key in unknown
        ]
        allowed = ", ".join(cls.model_fields) or "none"
        return f"unknown key{'s' * (len(unknown) > 1)} {', '.join(keys)}; allowed: {allowed}"


def _require_kind(schema: dict[str, Any]) -> None:
    """Require `kind` in the JSON Schema, although it has a default in Python."""
    schema["required"] = ["kind", *schema.get("required", [])]


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
    """Settings of one kind. A family is a direct subclass that names its package, and its subclasses are its kinds."""

    package: ClassVar[str | None]
    """The package with a file per kind; None for a family that users cannot extend."""
    kinds: ClassVar[dict[str, type[Any]]]
    """The configurations of the family, by kind."""
    module: ClassVar[str | None] = None
    """Module of the package with the class that is built from it; None for the module with the kind's name."""
    renamed_kinds: ClassVar[dict[str, str]] = {}
    """New names of kinds, by their names in earlier versions."""

    model_config = ConfigDict(json_schema_extra=_require_kind)

    kind: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()  # The arguments go to `__pydantic_init_subclass__`, when the fields are known.

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__()
        if kwargs.get("is_family"):
            cls.package, cls.kinds = kwargs.get("package"), {}
        elif literal := get_args(cls.model_fields["kind"].annotation):
            known = cls.kinds.setdefault(literal[0], cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"{cls.__name__} and {known.__name__} have the same `kind`, {literal[0]!r}")
            cls.kinds[literal[0]] = cls  # The newer class, if a module is loaded again.

    @classmethod
    def find(cls, kind: str) -> "type[Self] | None":
        """Return the configuration class of a kind, loaded from the family's package if needed; None if there is none.

        Raises:
            ValueError: the file of the kind cannot be imported, or lacks the configuration or the class built from it.
        """
        module = f"{cls.package}.{kind}"
        if kind not in cls.kinds and cls.package is not None and kind.isidentifier() and find_spec(module) is not None:
            _import_added(module)
            if kind not in cls.kinds:
                raise ValueError(f"{module} has no {cls.__name__} whose kind is {kind!r}")
            _require_implementation(cls.kinds[kind], module)
        return cls.kinds.get(kind)

    @classmethod
    def hint(cls, kind: str, allowed: Iterable[str]) -> str:
        """Return the end of the error for an unknown kind, which suggests a similar one; "" if there is none."""
        if kind in cls.renamed_kinds:
            return f"; {kind} is now called {cls.renamed_kinds[kind]}"
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
            data: the value.
            *where: the path of its key, relative to the section that is validated.

        Raises:
            ValidationError: the value names no kind of the family.
        """
        if isinstance(data, cls):
            return type(data)
        added = f", or the name of an added file of {cls.package}" if cls.package else ""
        rule = f"one of {', '.join(cls.kinds)}{added}"
        if not isinstance(data, dict | str):
            stated = f"must be a kind, or a mapping whose `kind` is {rule}"
            raise errors_at([(where, data, refused(stated, "kind"))])
        kind, keys = (data.get("kind", Missing("kind")), (*where, "kind")) if isinstance(data, dict) else (data, where)
        try:
            if isinstance(kind, str) and (found := cls.find(kind)):
                return found
        except ValueError as error:
            raise errors_at([(keys, kind, refused(str(error)))]) from None
        # For `objective: {kind: {kind: md4}}`, the hint is about md4.
        name = kind.get("kind") if isinstance(kind, dict) else kind
        hint = cls.hint(name, [*cls.kinds, *cls.added_kinds()]) if isinstance(name, str) else ""
        raise errors_at([(keys, kind, refused(f"must be {rule}{hint}"))])

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Return the configuration for a value of params.yaml: a mapping with `kind`, or a bare kind.

        Raises:
            ValidationError: the value names no kind of the family, or its settings break a rule.
        """
        if isinstance(data, cls):
            return data
        return cls.class_of(data).model_validate({"kind": data} if isinstance(data, str) else data)


class AnyKind:
    """Annotation of a setting whose value is the configuration of any kind of a family, or of some of its kinds."""

    def __init__(self, family: type[KindConfig]) -> None:
        self.family = family
        self.annotated: Any = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        self.annotated = source
        return core_schema.no_info_plain_validator_function(
            self._parse,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda config: config.model_dump()),
        )

    def _parse(self, data: Any) -> Any:
        config = self.family.parse(data)
        if not isinstance(config, self.annotated):
            allowed = [kind for kind, other in self.family.kinds.items() if issubclass(other, self.annotated)]
            raise refused(f"must be one of {', '.join(allowed)}")
        return config

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        built_in = {
            kind: config
            for kind, config in self.family.kinds.items()
            if issubclass(config, self.annotated) and config.__module__ == self.family.__module__
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
        if self.family.package:
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


def implementation(config: KindConfig) -> Callable[..., Any]:
    """Return the class that is built from a configuration.

    Raises:
        ValueError: the file of the kind has no such class.
    """
    module = f"{config.package}.{config.module or config.kind}"
    if type(config) not in _implementations:
        import_module(module)
    _require_implementation(type(config), module)
    return _implementations[type(config)]


def _require_implementation(config: type[KindConfig], module: str) -> None:
    if config not in _implementations:
        raise ValueError(f"{module} has no class with config={config.__name__}")


def _import_added(module: str) -> None:
    """Import a file that a user added.

    Raises:
        ValueError: it fails; the message has the line of the file and the error.
    """
    try:
        import_module(module)
    except Exception as error:  # Whatever the file raises.
        frames = walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_globals.get("__name__") == module]
        where = f"in line {lines[-1]}, " if lines else ""  # A SyntaxError states it in its message.
        raise ValueError(f"{module} cannot be imported: {where}{type(error).__name__}: {error}") from error
