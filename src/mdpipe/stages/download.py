"""Stage `download`: raw text or images of a source."""

import shutil
from pathlib import Path

from mdpipe.data.raw.writer import write_shards
from mdpipe.data.sources import open_source
from mdpipe.params import Params
from mdpipe.params.catalog import find_entry
from mdpipe.params.sources import CatalogSource
from mdpipe.pipeline import paths
from mdpipe.pipeline.data_fingerprint import source_fingerprint
from mdpipe.pipeline.provenance import require_unchanged_inputs


def download(params: Params, source: str) -> None:
    """Read the source and store it in data/raw/SOURCE. Downloads stay in `paths.DOWNLOADS` for the next time.

    Raises:
        ValueError: the source cannot be read, is empty or broken.
    """
    stated = params.sources[source]
    found = stated.resolve()
    entry = find_entry(stated.name) if isinstance(stated, CatalogSource) else None
    files = entry.files if entry else None
    if entry and files and not Path(found.path).is_dir():
        raise ValueError(f"{found.path} is no folder; it must contain {entry.title}. {files}")
    try:
        shards = open_source(found, paths.DOWNLOADS)
    except ValueError as error:
        if files is None:
            raise
        raise ValueError(f"{error}. {files}") from None  # The files cannot be downloaded: say where they are.
    scratch = paths.pieces("download", source, source_fingerprint(params, source))
    write_shards(paths.raw(source), found.kind, shards, scratch, None if entry is None else entry.counts)
    require_unchanged_inputs()
    for finished in paths.all_pieces("download", source):
        shutil.rmtree(finished)
