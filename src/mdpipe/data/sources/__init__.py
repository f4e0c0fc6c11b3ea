"""Read raw text and images from all kinds of sources; `mdpipe.params.sources` has the settings of each kind."""

from collections.abc import Sequence
from pathlib import Path

from mdpipe.data.sources.writer import SourceShard
from mdpipe.params import sources as kinds


def open_source(source: kinds.Source, downloads: Path) -> Sequence[SourceShard]:
    """Return the shards of a source, which can be read in parallel. Each kind imports only the libraries it needs.

    Args:
        source: its settings in params.yaml.
        downloads: the folder of downloaded files.

    Raises:
        ValueError: the source cannot be read; the message names the file and a hint.
    """
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
