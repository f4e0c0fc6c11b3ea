"""Stage `download`: raw text or images of a source."""

from mdpipe.data.sources import open_source
from mdpipe.data.sources.writer import write_shards
from mdpipe.params import Params
from mdpipe.params.catalog import find_entry
from mdpipe.params.sources import CatalogSource
from mdpipe.pipeline import paths
from mdpipe.pipeline.run_hash import hash_source, unfinished_work


def download(params: Params, source: str) -> None:
    """Read a source and write data/raw/SOURCE; keep downloaded files in `paths.DOWNLOADS` for the next time.

    Raises:
        ValueError: The source cannot be read, is empty or broken.
    """
    settings = params.sources[source]
    shards = open_source(settings, paths.DOWNLOADS)
    counts = find_entry(settings.name).counts if isinstance(settings, CatalogSource) else None
    with unfinished_work("download", source, hash_source(params, source)) as work_dir:
        write_shards(paths.raw(source), settings.resolve().kind, shards, work_dir, counts)
