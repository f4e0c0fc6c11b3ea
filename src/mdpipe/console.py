"""Log output and error messages of the command line.

The library does not know the name of a run, dataset or source: its errors name `tokenizer.vocab_size`, while the key in
params.yaml is `datasets.NAME.tokenizer.vocab_size`. Errors of a stage get the full paths of their keys here.
"""

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mdpipe.params import Params
from mdpipe.params.registry import Config

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 120
"""Columns of tables."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""Texts of torch's errors when a GPU or CPU runs out of memory; the CPU's error has no type."""

SECTION_OF = {
    "tokenizer": "datasets",
    "packing": "datasets",
    "splits": "datasets",
    **dict.fromkeys(("objective", "network", "train", "hardware", "sample", "evaluate"), "runs"),
}
"""The section of params.yaml for each key that errors name, as in `network.hidden_size`."""

DOTTED = re.compile(rf"(?<![\w./])({'|'.join(SECTION_OF)})\.(\w+)")
QUOTED = re.compile(r"(?:\bthe (source|dataset|run)'s |\b(its) )?`(\w+)`( in params\.yaml)?")


@contextmanager
def report_errors() -> Iterator[None]:
    """End in one line that says what to do about bad input or a corrupt file; only bugs show a traceback.

    The line has no escape codes, whatever names and values it quotes, and no password or token of a URL.
    """
    try:
        yield
    except Exception:
        # Code of stages is not loaded before their inputs are recorded.
        from mdpipe.data.artifacts.files import explain_disk_full
        from mdpipe.messages import printable_lines, without_secrets

        try:
            with explain_disk_full(Path.cwd()):
                raise
        except RuntimeError as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            sys.exit("mdpipe: not enough memory for this; ask for fewer or shorter samples, or smaller batches")
        except (OSError, ValueError) as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if isinstance(error, ValueError) and not frame.f_globals["__name__"].startswith("mdpipe."):
                raise
            sys.exit(f"mdpipe: {printable_lines(without_secrets(str(error)))}")


def table_text(table: "Table") -> str:
    """Return a table as plain text, with a line break at its end."""
    from rich.console import Console

    console = Console(width=WIDTH, markup=False, emoji=False, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


class StderrHandler(logging.Handler):
    """Writes messages to the current standard error, which a progress bar or a test may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line and flush it, so that `tail -f` shows it at once."""
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


def configure_logging() -> None:
    """Write the package's log messages from level INFO on to the standard error; repeated calls change nothing."""
    logger = logging.getLogger("mdpipe")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())


@contextmanager
def full_keys(params: Params, names: Mapping[str, str]) -> Iterator[None]:
    """Complete the keys in the message of a ValueError.

    Args:
        params: The params.
        names: The arguments of the stage, by section.
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

    def expand_dotted(found: re.Match[str]) -> str:
        section = SECTION_OF[found[1]]
        return f"{section}.{owners[section]}.{found[0]}" if section in owners and found[2] in keys else found[0]

    def expand_quoted(found: re.Match[str]) -> str:
        owner, its, key, file = found.groups(default="")
        section = f"{owner}s" if owner else own if its or file else None
        if section not in owners or not (owner or key in type(getattr(params, section)[owners[section]]).model_fields):
            return found[0]
        return f"`{section}.{owners[section]}.{key}`{file}"

    full = QUOTED.sub(expand_quoted, DOTTED.sub(expand_dotted, message))
    if own is not None and not any(f"{section}.{name}" in full for section, name in owners.items()):
        full = full.replace("params.yaml", f"params.yaml (under {own}.{owners[own]})", 1)
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
