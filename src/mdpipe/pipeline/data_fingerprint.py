"""What the finished shards of a source or of a dataset depend on: they are only used where it fits."""

import os
from collections.abc import Iterator
from pathlib import Path

from mdpipe.params import Params
from mdpipe.params.sources import resolved
from mdpipe.pipeline import paths
from mdpipe.pipeline.hashing import code_files, digest_of

SOURCE_CODE = ("data/artifacts", "data/pixels.py", "data/raw", "data/sources", "data/work")
"""What dvc.yaml names of `data` as the code that reads a source."""
ENCODING_CODE = (
    "data/artifacts",
    "data/encoded",
    "data/encoding",
    "data/pixels.py",
    "data/raw",
    "data/splits",
    "data/tokenizers",
    "data/work",
)
"""What dvc.yaml names of `data` as the code that encodes."""


def source_fingerprint(params: Params, source: str) -> str:
    """Hash of a source's settings, the code that reads it, and the names, sizes and times of a user's files."""
    settings = resolved(params.sources[source])
    stated = {"settings": settings.model_dump(mode="json"), "files": _seen(Path(settings.path))}
    return digest_of(stated, code_files(SOURCE_CODE))


def encoding_fingerprint(params: Params, dataset: str) -> str:
    """Hash of seed, settings, code and tokenizer, and of the names, sizes and times of the raw files."""
    settings = params.datasets[dataset]
    raw = _seen(paths.raw(settings.source))
    stated = {"seed": params.seed, "dataset": settings.model_dump(mode="json"), "raw": raw}
    return digest_of(stated, [*code_files(ENCODING_CODE), *sorted(paths.tokenizer(dataset).glob("*"))])


def _seen(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a file, or of all files of a folder: to read a large corpus twice would take too long."""
    found = [(str(file), file.stat()) for file in (_files_below(path) if path.is_dir() else [path]) if file.exists()]
    return sorted((name, told.st_size, told.st_mtime_ns) for name, told in found)


def _files_below(path: Path) -> Iterator[Path]:
    """All files of a folder and of the folders linked there, each folder once."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(folder) / name for name in files)
