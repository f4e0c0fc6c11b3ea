"""Log output of the command line."""

import logging
import sys


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
