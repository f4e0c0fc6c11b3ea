"""Stage `download`: raw text or pictures of a source."""

from pathlib import Path

from mdpipe.data.raw import write_raw
from mdpipe.data.sources import read_source
from mdpipe.params import Params
from mdpipe.stages import paths


def download(params: Params, source: str) -> None:
    """Read the source and keep it under data/raw/SOURCE.

    Raises:
        ValueError: the source cannot be read, is empty or broken.
    """
    settings = params.sources[source].model_dump()
    kind, path = settings.pop("kind"), Path(settings.pop("path"))
    write_raw(paths.raw(source), kind, read_source(kind, path, **settings))
