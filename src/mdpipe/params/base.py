"""What every section of params.yaml has in common: no unknown keys, no silent conversions, names fit for files."""

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, model_validator
from pydantic_core import PydanticCustomError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""Name of a source, dataset or run: part of file names and of DVC's stage names, where `-` and `@` mean something."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping of params.yaml.

    DVC watches the values in the file, so a key has a default only if the code that the stages watch has it, too.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown_keys(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> "Section":
        unknown = [key for key in data if key not in cls.model_fields] if isinstance(data, dict) else []
        if unknown:
            raise PydanticCustomError("unknown_keys", "{message}", {"message": cls._unknown_message(unknown)})
        section: Section = handler(data)
        return section

    @classmethod
    def _unknown_message(cls, unknown: list[Any]) -> str:
        allowed = list(cls.model_fields)
        near = difflib.get_close_matches(str(unknown[0]), allowed, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        keys = ", ".join(repr(key) for key in unknown)
        return f"unknown key {keys}{hint}; allowed: {', '.join(allowed)}"
