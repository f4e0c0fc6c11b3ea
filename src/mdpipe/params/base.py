"""What every section of params.yaml has in common: no unknown keys, no silent conversions, names fit for files."""

from typing import Annotated, Any, ClassVar, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic_core import InitErrorDetails, ValidationError

from mdpipe.params.nearest import did_you_mean
from mdpipe.params.problems import Missing, again, refused
from mdpipe.params.wording import NAME_PATTERN

MOST_LETTERS = 64
"""Of a name: two and the stage's make a file name, of which file systems take 255 bytes, some 143."""
DEVICES = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))}
"""Names that Windows does not take for files, where a repository with results of these is cloned, too."""
MOST_PATH_BYTES, MOST_FILE_NAME_BYTES = 4095, 255
"""Of a path and of its parts, as file systems have it."""


def _is_no_device(name: str) -> str:
    if name in DEVICES:
        raise ValueError("names a device on Windows; choose another name")
    return name


def _is_fit_for_engines(path: str) -> str:
    if not path or path != path.strip() or set(path) & set("\t\n"):
        raise ValueError("a path is not empty and has no spaces around it, no tabs and no line breaks")
    if set(path) & set("{}"):
        raise ValueError("Snakemake takes braces in a path for a wildcard; rename the folder or file, or link to it")
    if "://" in path:
        raise ValueError("DVC watches a path on this machine; sources of the kinds url and huggingface are fetched")
    if path.endswith(".dvc") or path.rpartition("/")[2] in ("dvc.yaml", "dvc.lock"):
        raise ValueError("DVC takes no file of its own for a dependency; rename it")
    if len(path.encode()) > MOST_PATH_BYTES or max(map(len, path.encode().split(b"/"))) > MOST_FILE_NAME_BYTES:
        raise ValueError(f"the parts of a path have at most {MOST_FILE_NAME_BYTES} bytes each")
    return path


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MOST_LETTERS), AfterValidator(_is_no_device)]
"""Name of a source, dataset or run: part of file names and of DVC's stage names, where `-` and `@` mean something."""


def _is_mapping_of_names(names: Any) -> Any:
    if isinstance(names, list | str):
        listed = ", ".join(map(str, names)) if isinstance(names, list) else names
        raise refused(f"must be a mapping of names without values; write {{{listed}}}")
    return names


Names = Annotated[dict[Name, None], BeforeValidator(_is_mapping_of_names)]
"""Names as keys without values, `{chars_md4, digits}`, over which DVC's `foreach` and `matrix` iterate."""


def _are_distinct(entries: list[Any]) -> list[Any]:
    twice = [entry for index, entry in enumerate(entries) if entry in entries[:index]]
    if twice:
        raise ValueError(f"{twice[0]} is there a second time; remove one")
    return entries


Distinct = AfterValidator(_are_distinct)
"""Of a list: without duplicates, which would be two stages or rows of one name."""

WatchedPath = Annotated[str, AfterValidator(_is_fit_for_engines)]
"""Path of a file or folder that both engines watch."""

FORMS = {str: "a text", dict: "a mapping", list: "a list", bool: "a truth value"}
"""Tags of the members of unions that the type of a value in YAML tells apart. None of them is a name or a key."""


def by_form(rule: str) -> Discriminator:
    """Return what tells the members of a union apart by their tags in `FORMS`; any other value breaks the rule."""
    return Discriminator(
        lambda value: "a mapping" if isinstance(value, BaseModel) else FORMS.get(type(value)),
        custom_error_type="rule",
        custom_error_message=rule,
    )


Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A mapping of params.yaml. Stages see its values with all defaults filled in (see `mdpipe.pipeline.resolve`)."""

    renamed: ClassVar[dict[str, str]] = {}
    """Keys under the names that they had in earlier versions, with those of today."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_wrong_keys(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> "Config":
        if isinstance(data, BaseModel):
            return cast("Config", handler(data))
        if not isinstance(data, dict):
            keys = f"a mapping with the keys {', '.join(cls._keys())}" if cls.model_fields else "{}, without any keys"
            raise refused(f"must be {keys}", kind="section")
        # The field's own rule then says what may be written there.
        missing = {
            key: Missing(key, field.description, type(None) in get_args(field.annotation))
            for key, field in cls.model_fields.items()
            if field.is_required()
        }
        known = missing | {key: value for key, value in data.items() if key in cls.model_fields}
        unknown = [key for key in data if key not in known]
        if not unknown:
            return cast("Config", handler(known))
        problems = [InitErrorDetails(type=refused(cls._unknown_message(unknown), "unknown_keys"), input=data)]
        try:
            handler(known)
        except ValidationError as error:
            # A key that is missing here may be the one that is misspelled.
            problems += [again(found) for found in error.errors() if found["input"] not in missing.values()]
        raise ValidationError.from_exception_data(cls.__name__, problems)

    @classmethod
    def _keys(cls) -> list[str]:
        return sorted(cls.model_fields, key=lambda key: key != "kind")

    @classmethod
    def _unknown_message(cls, unknown: list[Any]) -> str:
        allowed = cls._keys()
        new = {key: cls.renamed[key] for key in unknown if key in cls.renamed}
        hints = {key: f", now `{name}`" for key, name in new.items() if name.partition(":")[0] in cls.model_fields}
        keys = ", ".join(f"{key!r}{hints.get(key) or did_you_mean(str(key), allowed)}" for key in unknown)
        return f"unknown key{'s' * (len(unknown) > 1)} {keys}; allowed: {', '.join(allowed) or 'none'}"
