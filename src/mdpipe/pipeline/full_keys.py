"""Errors of a stage with the full path of every key of params.yaml that they name.

The library below the stages does not know how a run, a dataset or a source is called: it names `tokenizer.vocab_size`,
and the key in the file is `datasets.NAME.tokenizer.vocab_size`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mdpipe.params import Params
from mdpipe.params.kinds import Config

SECTION_OF = {
    "tokenizer": "datasets",
    "packing": "datasets",
    "splits": "datasets",
    **dict.fromkeys(("objective", "network", "train", "hardware", "sample", "evaluate"), "runs"),
}
"""Where the keys are whose settings errors name like `network.width`."""

DOTTED = re.compile(rf"(?<![\w./])({'|'.join(SECTION_OF)})\.(\w+)")
OWNED = re.compile(r"\bthe (source|dataset|run)'s `(\w+)`")
THEIRS = re.compile(r"\bits `(\w+)`()")
QUOTED = re.compile(r"`(\w+)`( in params\.yaml)")


@contextmanager
def full_keys(params: Params, names: Mapping[str, str]) -> Iterator[None]:
    """Complete the keys that a ValueError names.

    Args:
        params: all of them.
        names: what the stage was called with, by section.
    """
    try:
        yield
    except ValueError as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (with_full_keys(error.args[0], params, names),)
        raise


def with_full_keys(message: str, params: Params, names: Mapping[str, str]) -> str:
    """Return a message with the full path of the keys in it, or of the section that it must be about."""
    owners = _owners(params, names)
    own = next((section for section in owners if section in names), None)
    keys = _keys(Config)

    def dotted(found: re.Match[str]) -> str:
        section = SECTION_OF[found[1]]
        return f"{section}.{owners[section]}.{found[0]}" if section in owners and found[2] in keys else found[0]

    def owned(found: re.Match[str]) -> str:
        section = f"{found[1]}s"
        return f"`{section}.{owners[section]}.{found[2]}`" if section in owners else found[0]

    full = OWNED.sub(owned, DOTTED.sub(dotted, message))
    if own is None:
        return full
    path = f"{own}.{owners[own]}"
    settings = getattr(params, own)[owners[own]]

    def theirs(found: re.Match[str]) -> str:
        return f"`{path}.{found[1]}`{found[2]}" if found[1] in type(settings).model_fields else found[0]

    full = QUOTED.sub(theirs, THEIRS.sub(theirs, full))
    if "params.yaml" in full and not any(f"{section}.{name}" in full for section, name in owners.items()):
        full = full.replace("params.yaml", f"params.yaml (under {path})", 1)
    return full


def _owners(params: Params, names: Mapping[str, str]) -> dict[str, str]:
    """Return the run, dataset and source that the stage is about, as far as there are any."""
    owners = {section.rpartition(".")[2]: name for section, name in names.items()}
    if "runs" in owners:
        owners.setdefault("datasets", params.runs[owners["runs"]].dataset)
    if "datasets" in owners:
        owners.setdefault("sources", params.datasets[owners["datasets"]].source)
    return owners


def _keys(section: type[Config]) -> set[str]:
    """Return the keys of a section and of all that inherit it: other words after a dot are endings of files."""
    return set(section.model_fields).union(*map(_keys, section.__subclasses__()))
