"""Fingerprints: finished shards of a source or a dataset are reused only if nothing they depend on has changed."""

import os
from collections.abc import Iterator
from pathlib import Path

from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.hashing import code_files, digest_of

SOURCE_CODE = ("data/artifacts", "data/parallel.py", "data/pixels.py", "data/raw.py", "data/sources")
"""Code in `data` that reads a source, as in dvc.yaml."""
ENCODING_CODE = (
    "data/artifacts",
    "data/dataset.py",
    "data/parallel.py",
    "data/pixels.py",
    "data/raw.py",
    "data/splits.py",
    "data/tokenize",
    "data/tokenizers",
)
"""Code in `data` that encodes, as in dvc.yaml."""


def source_fingerprint(params: Params, source: str) -> str:
    """Hash a source's settings, the code that reads it, and the names, sizes and times of its files."""
    settings = params.sources[source].resolve()
    stated = {"settings": settings.model_dump(mode="json"), "files": _seen(Path(settings.path))}
    return digest_of(stated, code_files(SOURCE_CODE))


def encoding_fingerprint(params: Params, dataset: str) -> str:
    """Hash seed, settings, code and tokenizer, and the names, sizes and times of the raw files."""
    settings = params.datasets[dataset]
    raw = _seen(paths.raw(settings.source))
    stated = {"seed": params.seed, "dataset": settings.model_dump(mode="json"), "raw": raw}
    return digest_of(stated, [*code_files(ENCODING_CODE), *sorted(paths.tokenizer(dataset).glob("*"))])


def _seen(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of a file or of all files of a folder: hashing a large corpus would take too long."""
    found = [(str(file), file.stat()) for file in (_files_below(path) if path.is_dir() else [path]) if file.exists()]
    return sorted((name, status.st_size, status.st_mtime_ns) for name, status in found)


def _files_below(path: Path) -> Iterator[Path]:
    """Yield all files of a folder and of the folders linked there, each folder once."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(folder) / name for name in files)
