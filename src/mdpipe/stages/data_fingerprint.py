"""What the finished shards of a source or of a dataset depend on: they are only used where it fits."""

from pathlib import Path

from mdpipe.params import Params
from mdpipe.params.sources import resolved
from mdpipe.stages import paths
from mdpipe.stages.digest import code_files, digest_of

CODE = ("data",)
"""What dvc.yaml names as the code that reads and encodes data."""


def source_fingerprint(params: Params, source: str) -> str:
    """Hash of a source's settings, the code that reads it, and the names, sizes and times of a user's files."""
    settings = resolved(params.sources[source])
    path = Path(settings.path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    seen = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    return digest_of({"settings": settings.model_dump(mode="json"), "files": seen}, code_files(CODE))


def encoding_fingerprint(params: Params, dataset: str) -> str:
    """Hash of the seed, the dataset's settings, the code, the tokenizer and what the raw folder says of itself."""
    settings = params.datasets[dataset]
    files = [paths.raw(settings.source) / "source.json", *sorted(paths.raw(settings.source).glob("keys-*.npy"))]
    files += sorted(paths.tokenizer(dataset).glob("*"))
    stated = {"seed": params.seed, "dataset": settings.model_dump(mode="json")}
    return digest_of(stated, [*code_files(CODE), *files])
