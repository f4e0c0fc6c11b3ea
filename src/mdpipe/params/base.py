"""What every section of params.yaml has in common: no unknown keys, no silent conversions, names fit for files."""

from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ValidatorFunctionWrapHandler,
    model_validator,
)

from mdpipe.params.nearest import did_you_mean
from mdpipe.params.problems import Missing, refused
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
        raise ValueError("DVC watches a path on this machine; sources of the kinds url and hub are fetched")
    if path.endswith(".dvc") or path.rpartition("/")[2] in ("dvc.yaml", "dvc.lock"):
        raise ValueError("DVC takes no file of its own for a dependency; rename it")
    if len(path.encode()) > MOST_PATH_BYTES or max(map(len, path.encode().split(b"/"))) > MOST_FILE_NAME_BYTES:
        raise ValueError(f"the parts of a path have at most {MOST_FILE_NAME_BYTES} bytes each")
    return path


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MOST_LETTERS), AfterValidator(_is_no_device)]
"""Name of a source, dataset or run: part of file names and of DVC's stage names, where `-` and `@` mean something."""


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


class Section(BaseModel):
    """A mapping of params.yaml.

    DVC watches the values in the file, so a key has a default only if the code that the stages watch has it, too.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_wrong_keys(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> "Section":
        if isinstance(data, dict):
            if unknown := [key for key in data if key not in cls.model_fields]:
                raise refused(cls._unknown_message(unknown), kind="unknown_keys")
            # The field's own rule then says what may be written there.
            required = {key: field for key, field in cls.model_fields.items() if field.is_required()}
            missing = {
                key: Missing(key, field.description, type(None) in get_args(field.annotation))
                for key, field in required.items()
            }
            data = missing | data
        elif not isinstance(data, BaseModel):
            keys = f"a mapping with the keys {', '.join(cls._keys())}" if cls.model_fields else "{}, without any keys"
            raise refused(f"must be {keys}", kind="section")
        section: Section = handler(data)
        return section

    @classmethod
    def _keys(cls) -> list[str]:
        return sorted(cls.model_fields, key=lambda key: key != "kind")

    @classmethod
    def _unknown_message(cls, unknown: list[Any]) -> str:
        allowed = cls._keys()
        keys = ", ".join(f"{key!r}{did_you_mean(str(key), allowed)}" for key in unknown)
        return f"unknown key{'s' * (len(unknown) > 1)} {keys}; allowed: {', '.join(allowed) or 'none'}"
