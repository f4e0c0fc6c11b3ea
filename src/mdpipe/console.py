"""Log output and error messages of the command line."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""Texts of torch's errors when a GPU or CPU runs out of memory; the CPU's error has no type."""


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
