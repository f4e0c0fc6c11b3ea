"""How the command line tells a person what went wrong."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def told_plainly() -> Iterator[None]:
    """Bad input and missing or corrupt files end in a line that says what to do; only bugs show a traceback.

    The line has no escape codes, whatever names and values it quotes, and no password or token of a URL.
    """
    try:
        yield
    except Exception:
        # Code of stages is not loaded before their inputs are recorded.
        from mdpipe.data.artifacts.room import needs_room
        from mdpipe.messages import printable_lines, without_secrets

        try:
            with needs_room(Path.cwd()):
                raise
        except (OSError, ValueError) as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if isinstance(error, ValueError) and not frame.f_globals["__name__"].startswith("mdpipe."):
                raise
            sys.exit(f"mdpipe: {printable_lines(without_secrets(str(error)))}")
