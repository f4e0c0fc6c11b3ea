"""Stage `download`: raw text or pictures of a source."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdpipe.data.raw.writing import write_parts
from mdpipe.data.sources import source_parts
from mdpipe.params import Params
from mdpipe.params.catalogue import Entry, entry
from mdpipe.params.sources import Catalogued, resolved
from mdpipe.pipeline import paths
from mdpipe.pipeline.data_fingerprint import source_fingerprint
from mdpipe.pipeline.provenance import require_unchanged_inputs


def download(params: Params, source: str) -> None:
    """Read the source and keep it under data/raw/SOURCE.

    What is fetched stays in `paths.DOWNLOADS`, for other sources and for the next time.

    Raises:
        ValueError: the source cannot be read, is empty or broken.
    """
    stated = params.sources[source]
    facts = entry(stated.name) if isinstance(stated, Catalogued) else None
    settings = resolved(stated).model_dump()
    kind, path = settings.pop("kind"), Path(settings.pop("path"))
    with _said_where_from(path, facts):
        parts = source_parts(kind, path, paths.DOWNLOADS, **settings)
    pieces = paths.pieces("download", source, source_fingerprint(params, source))
    write_parts(paths.raw(source), kind, parts, pieces, None if facts is None else facts.counts)
    require_unchanged_inputs()
    for made in paths.all_pieces("download", source):
        shutil.rmtree(made)


@contextmanager
def _said_where_from(path: Path, facts: Entry | None) -> Iterator[None]:
    """Where files are missing that the catalogue cannot fetch, say where they are to be had."""
    if facts is None or facts.files is None:
        yield
        return
    if not path.is_dir():
        raise ValueError(f"{path} is no folder, and {facts.title} is to lie there. {facts.files}")
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}. {facts.files}") from None
