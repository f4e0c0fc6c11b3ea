"""Files that are in two places without being stored twice, where the file system can do that."""

import os
import shutil
from contextlib import suppress
from pathlib import Path


def place(file: Path, target: Path) -> None:
    """Give a file a second name, or copy it where it cannot have one. It must not be written to from then on."""
    with suppress(OSError):
        os.link(file, target)
        return
    shutil.copyfile(file, target)
