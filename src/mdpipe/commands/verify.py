"""Command `mdpipe verify`: hash every byte of the artifacts that dvc.lock names and of DVC's cache.

DVC hashes a file once and then goes by its size, inode and modification time; it does not hash read-only objects of its
cache at all. A disk can change bytes and leave all of these.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.state import StateNoop

from mdpipe.commands.unlock import open_repository

FOLDER = ".dir"
"""The end of the name of an object that lists a folder's files."""

OBJECT = re.compile(r"[0-9a-f]{32}")


class BrokenArtifactsError(ValueError):
    """An artifact or an object of the cache does not have the bytes that it should have."""


def verify() -> str:
    """Return how much was verified; broken objects are removed, and broken artifacts marked for DVC to look at again.

    Raises:
        BrokenArtifactsError: something is broken; the message names each file and says how to restore it.
    """
    with open_repository() as repo:
        cache = repo.cache.local
        cache.state = StateNoop()  # DVC's record of files is not trusted here.
        outputs = [out for stage in repo.index.stages for out in stage.outs if out.hash_info]
        absent = [
            out
            for out in outputs
            if out.use_cache and not out.exists and not Path(cache.oid_to_path(out.hash_info.value)).exists()
        ]
        named = {path: (path.parent.name + path.name).removesuffix(FOLDER) for path in Path(cache.path).glob("??/*")}
        objects = {path: name for path, name in sorted(named.items()) if OBJECT.fullmatch(name)}
        broken_objects = [path for path, name in objects.items() if _hash(cache, path) != name]
        for path in broken_objects:
            path.unlink()
        present = [out for out in outputs if out not in absent]
        broken_files = [file for out in present for file in _broken_files(cache, out)]
        shown = [f"  {os.path.relpath(path)}: removed from DVC's cache" for path in broken_objects]
        for file in broken_files:
            shown.append(f"  {os.path.relpath(file)}: {'changed' if file.exists() else 'missing'}")
            if file.exists():
                os.utime(file)
    if shown:
        raise BrokenArtifactsError(
            "not the bytes that dvc.lock and DVC's cache should have; `snakemake` restores these files or makes them"
            " again:\n" + "\n".join(shown)
        )
    lines = [
        f"{len(present)} outputs in dvc.lock and {len(objects)} objects in DVC's cache have the bytes they should have"
    ]
    if absent:
        lines.append(
            f"{len(absent)} outputs in dvc.lock are not here yet: `dvc pull` fetches them, `snakemake` makes them"
        )
    return "\n".join(lines)


def _broken_files(cache: Any, output: Any) -> Iterator[Path]:
    """Yield the files of an output that are not as dvc.lock says, or the output where the cache lists no files."""
    if output.exists and output.get_hash() == output.hash_info:
        return
    whole = Path(output.fs_path)
    named = [
        whole.joinpath(*key)
        for key, _, hash_info in (output.get_obj() or [] if output.is_dir_checksum else [])
        if _hash(cache, whole.joinpath(*key)) != hash_info.value
    ]
    yield from named or [whole]


def _hash(cache: Any, path: Path) -> str | None:
    """Return the hash of a file, or None if there is none."""
    if not path.is_file():
        return None
    return str(hash_file(str(path), cache.fs, cache.hash_name)[1].value)
