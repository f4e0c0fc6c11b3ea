"""Full paths of the keys of params.yaml in the errors of a stage.

The library does not know the name of a run, dataset or source: its errors name `tokenizer.vocab_size`, while the key in
params.yaml is `datasets.NAME.tokenizer.vocab_size`.
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
"""The section of params.yaml for each key that errors name, as in `network.hidden_size`."""

DOTTED = re.compile(rf"(?<![\w./])({'|'.join(SECTION_OF)})\.(\w+)")
OWNED = re.compile(r"\bthe (source|dataset|run)'s `(\w+)`")
THEIRS = re.compile(r"\bits `(\w+)`()")
QUOTED = re.compile(r"`(\w+)`( in params\.yaml)")


@contextmanager
def full_keys(params: Params, names: Mapping[str, str]) -> Iterator[None]:
    """Complete the keys in the message of a ValueError.

    Args:
        params: the params.
        names: the arguments of the stage, by section.
    """
    try:
        yield
    except ValueError as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (with_full_keys(error.args[0], params, names),)
        raise


def with_full_keys(message: str, params: Params, names: Mapping[str, str]) -> str:
    """Return the message with the full path of its keys, or with the stage's section if it only names params.yaml."""
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
    """Return the run, dataset and source of the stage, by section, if there are any."""
    owners = {section.rpartition(".")[2]: name for section, name in names.items()}
    if "runs" in owners:
        owners.setdefault("datasets", params.runs[owners["runs"]].dataset)
    if "datasets" in owners:
        owners.setdefault("sources", params.datasets[owners["datasets"]].source)
    return owners


def _keys(section: type[Config]) -> set[str]:
    """Return the keys of a class and its subclasses; other words after a dot are suffixes of files."""
    return set(section.model_fields).union(*map(_keys, section.__subclasses__()))
