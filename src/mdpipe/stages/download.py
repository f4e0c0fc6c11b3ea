"""Stage `download`: raw text or images of a source."""

from pathlib import Path

from mdpipe.data.sources import open_source
from mdpipe.data.sources.writer import write_shards
from mdpipe.params import Params
from mdpipe.params.catalog import find_entry
from mdpipe.params.sources import CatalogSource
from mdpipe.pipeline import paths
from mdpipe.pipeline.fingerprint import source_fingerprint, unfinished_work


def download(params: Params, source: str) -> None:
    """Read a source and write data/raw/SOURCE; keep downloaded files in `paths.DOWNLOADS` for the next time.

    Raises:
        ValueError: the source cannot be read, is empty or broken.
    """
    settings = params.sources[source]
    resolved = settings.resolve()
    entry = find_entry(settings.name) if isinstance(settings, CatalogSource) else None
    files = entry.files if entry else None
    if entry and files and not Path(resolved.path).is_dir():
        raise ValueError(f"{resolved.path} is no folder; it must contain {entry.title}. {files}")
    try:
        shards = open_source(resolved, paths.DOWNLOADS)
    except ValueError as error:
        if files is None:
            raise
        raise ValueError(f"{error}. {files}") from None  # The files cannot be downloaded: say where they are.
    counts = None if entry is None else entry.counts
    with unfinished_work("download", source, source_fingerprint(params, source)) as work_dir:
        write_shards(paths.raw(source), resolved.kind, shards, work_dir, counts)
