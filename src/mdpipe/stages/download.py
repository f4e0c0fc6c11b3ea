"""Stage `download`: raw text or pictures of a source."""

import shutil
from pathlib import Path

from mdpipe.data.raw.writing import write_parts
from mdpipe.data.sources import source_parts
from mdpipe.params import Params
from mdpipe.params.catalogue import entry
from mdpipe.params.sources import Catalogued, resolved
from mdpipe.stages import paths
from mdpipe.stages.data_fingerprint import source_fingerprint


def download(params: Params, source: str) -> None:
    """Read the source and keep it under data/raw/SOURCE.

    What is fetched stays in `paths.DOWNLOADS`, for other sources and for the next time.

    Raises:
        ValueError: the source cannot be read, is empty or broken.
    """
    settings = resolved(params.sources[source]).model_dump()
    kind, path = settings.pop("kind"), Path(settings.pop("path"))
    parts = source_parts(kind, path, paths.DOWNLOADS, **settings)
    pieces = paths.pieces("download", source, source_fingerprint(params, source))
    stated = params.sources[source]
    expected = entry(stated.name).counts if isinstance(stated, Catalogued) else None
    write_parts(paths.raw(source), kind, parts, pieces, expected)
    for made in paths.all_pieces("download", source):
        shutil.rmtree(made)
