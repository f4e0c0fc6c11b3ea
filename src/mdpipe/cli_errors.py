"""How the command line tells a person what went wrong."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told_plainly() -> Iterator[None]:
    """Bad input and missing or corrupt files end in a line that says what to do; only bugs show a traceback."""
    try:
        yield
    except OSError as error:
        sys.exit(f"mdpipe: {error}")
    except ValueError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith("mdpipe."):
            raise
        sys.exit(f"mdpipe: {error}")
