"""Types of numbers, names, paths and lists in params.yaml, with the rules of their values."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from mdpipe.params.errors import NAME_PATTERN, RUN_PATTERN, make_error

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
EvenNumber = Annotated[int, Field(ge=2, multiple_of=2)]
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
        raise make_error(f"must be a mapping of names without values; write {{{listed}}}")
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


def _stays_in_the_folder(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts:
        raise ValueError("is relative to the source's path, which DVC watches, and stays in there")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("`**` matches folders, between slashes: `**/*.txt`")
    return path


Within = Annotated[str, AfterValidator(_stays_in_the_folder)]
Files = Annotated[
    Annotated[Within, Tag("a text")] | Annotated[dict[str, Within], Field(min_length=1), Tag("a mapping")],
    by_form("must be text, or a mapping of the source's own splits to texts, such as {train: a, test: b}"),
]
Pattern = Annotated[
    Files,
    Field(description="Files of the folder to read, as a glob, or a mapping of split names to globs."),
]
"""Examples: `*.txt`, `**/*.md` for all levels, or `{train: "train-*.parquet", test: "test-*.parquet"}`."""
NameList = Annotated[list[str], Field(min_length=1)]
