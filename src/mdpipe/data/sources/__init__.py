"""Read raw text and images from all kinds of sources; `mdpipe.params.sources` has the settings of each kind."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mdpipe.data.sources.files import check_files
from mdpipe.data.sources.writer import SourceShard
from mdpipe.params import sources as kinds
from mdpipe.params.catalog import find_entry

CHECKED_FILES = 4
"""Files of each split whose beginning is checked before anything runs; those of large sources would take too long."""


def open_source(source: kinds.Source, downloads: Path) -> Sequence[SourceShard]:
    """Return the shards of a source, which can be read in parallel. Each kind imports only the libraries it needs.

    Args:
        source: its settings in params.yaml.
        downloads: the folder of downloaded files.

    Raises:
        ValueError: the source cannot be read; the message names the file and a hint.
    """
    with _where_to_get(source):
        match source.resolve():
            case kinds.DocstringsSource() | kinds.DigitsSource() | kinds.PhotosSource() as found:
                from mdpipe.data.sources.bundled import open_bundled

                return open_bundled(found)
            case kinds.TextSource() | kinds.JsonLinesSource() as found:
                from mdpipe.data.sources.text import open_text

                return open_text(found)
            case kinds.UrlSource() as found:
                from mdpipe.data.sources.download import open_url

                return open_url(found, downloads)
            case kinds.CsvSource() as found:
                from mdpipe.data.sources.csv import open_csv

                return open_csv(found)
            case kinds.ParquetSource() | kinds.ParquetImagesSource() as found:
                from mdpipe.data.sources.tables import open_parquet

                return open_parquet(found)
            case kinds.HuggingFaceSource() as found:
                from mdpipe.data.sources.tables import open_huggingface

                return open_huggingface(found, downloads)
            case kinds.ImageFolderSource() | kinds.ImageTarSource() as found:
                from mdpipe.data.sources.images import open_image_files

                return open_image_files(found)
            case kinds.NpySource() | kinds.NpzFlatSource() | kinds.MnistIdxSource() as found:
                from mdpipe.data.sources.arrays import open_arrays

                return open_arrays(found)
        raise TypeError(f"{type(source).__name__} has no reader")


def check_source(source: kinds.Source) -> None:
    """Check whether the settings of a source of local files fit them, as `open_source` does, but without reading more.

    That is the names of all files, and in the first ones of each split the header, schema, first line or names of
    arrays. Nothing is downloaded, and no file is read to its end.

    Raises:
        ValueError: they do not; the message names the file and a hint.
    """
    with _where_to_get(source):
        match source.resolve():
            case kinds.CsvSource() as found:
                from mdpipe.data.sources import csv

                check_files(found, csv.check_head, CHECKED_FILES)
            case kinds.TextSource() | kinds.JsonLinesSource() as found:
                from mdpipe.data.sources import text

                check_files(found, text.check_head, CHECKED_FILES)
            case kinds.ParquetSource() | kinds.ParquetImagesSource() as found:
                from mdpipe.data.sources import tables

                check_files(found, tables.check_head, CHECKED_FILES)
            case kinds.NpzFlatSource() as found:
                from mdpipe.data.sources import arrays

                check_files(found, arrays.check_head, CHECKED_FILES)
            case kinds.NpySource() | kinds.MnistIdxSource() as found:
                from mdpipe.data.sources.arrays import open_arrays

                open_arrays(found)
            case kinds.ImageFolderSource() as found:
                from mdpipe.data.sources.images import check_folder

                check_folder(found)
            case kinds.ImageTarSource() as found:
                check_files(found)


@contextmanager
def _where_to_get(source: kinds.Source) -> Iterator[None]:
    """Add to an error about files of the catalog that cannot be downloaded where to get them."""
    entry = find_entry(source.name) if isinstance(source, kinds.CatalogSource) else None
    if entry is None or entry.files is None:
        yield
        return
    if not Path(source.path).is_dir():
        raise ValueError(f"{source.path} is no folder; it must contain {entry.title}. {entry.files}")
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}. {entry.files}") from None
