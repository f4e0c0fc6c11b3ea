"""Work for `map_shards`: a module that other processes import fast."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from mdpipe.data.artifacts.files import read_json

BROKEN = 3


def write(item: int, folder: Path) -> dict[str, Any]:
    """Write a file of `item` characters."""
    (folder / "letters.txt").write_text(chr(97 + item) * item)
    return {"item": item, "bytes": item}


def write_slowly(item: int, folder: Path) -> dict[str, Any]:
    """Write the same, one character at a time."""
    with (folder / "letters.txt").open("w") as file:
        for _ in range(item):
            file.write(chr(97 + item))
            file.flush()
            time.sleep(0.01)
    return {"item": item, "bytes": item}


def write_all_but_one(item: int, folder: Path) -> dict[str, Any]:
    """The same, except for a broken item."""
    if item == BROKEN:
        (folder / "half.txt").write_text("half")
        raise ValueError(f"item {item} is broken; correct it")
    return write(item, folder)


def read_what_is_not_there(item: int, folder: Path) -> dict[str, Any]:
    """Bad input, as the package itself finds it."""
    return read_json(folder / f"{item}.json", "give it")


def die_once_the_others_are_done(item: int, folder: Path) -> dict[str, Any]:
    """As a process does for which there is no memory."""
    if item == BROKEN:
        while len([path for path in folder.parent.iterdir() if not path.name.startswith(".")]) < BROKEN:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(item, folder)
