"""Read raw text and images from all kinds of sources; `mdpipe.params.sources` has the settings of each kind."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from mdpipe.data.sources.files import SourceFile, check_files, find_classes
from mdpipe.params import sources as kinds
from mdpipe.params.catalog import find_entry

if TYPE_CHECKING:
    from mdpipe.data.sources.writer import SourceShard  # It imports NumPy, which `check_source` seldom needs.

READERS: Mapping[type[kinds.Source], tuple[str, str]] = {
    kinds.DocstringsSource: ("bundled", "open_bundled"),
    kinds.DigitsSource: ("bundled", "open_bundled"),
    kinds.PhotosSource: ("bundled", "open_bundled"),
    kinds.TextSource: ("text", "open_text"),
    kinds.JsonLinesSource: ("text", "open_text"),
    kinds.UrlSource: ("download", "open_url"),
    kinds.CsvSource: ("csv", "open_csv"),
    kinds.ParquetSource: ("tables", "open_parquet"),
    kinds.ParquetImagesSource: ("tables", "open_parquet"),
    kinds.HuggingFaceSource: ("tables", "open_huggingface"),
    kinds.ImageFolderSource: ("images", "open_image_files"),
    kinds.ImageTarSource: ("images", "open_image_files"),
    kinds.NpySource: ("arrays", "open_arrays"),
    kinds.NpzFlatSource: ("arrays", "open_arrays"),
    kinds.MnistIdxSource: ("arrays", "open_arrays"),
}
"""The module of each kind, and its function that returns the shards. A module of files that have a beginning to check
has the function `check_head`, too. Both raise ValueError, which names the file and a hint, if no file matches or one is
missing, broken, of another format or encoding, or lacks a column, field or array, or has it twice."""
CHECKED_FILES = 4
"""Files of each split whose beginning is checked before anything runs; those of large sources would take too long."""


def open_source(source: kinds.Source, downloads: Path) -> "Sequence[SourceShard]":
    """Return the shards of a source, which can be read in parallel. Each kind imports only the libraries it needs.

    Args:
        source: Its settings in params.yaml.
        downloads: The folder of downloaded files.

    Raises:
        ValueError: The source cannot be read; the message names the file and a hint.
    """
    with _where_to_get(source):
        found = source.resolve()
        if type(found) not in READERS:
            raise TypeError(f"{type(source).__name__} has no reader")
        module, function = READERS[type(found)]
        arguments = (downloads,) if isinstance(found, kinds.UrlSource | kinds.HuggingFaceSource) else ()
        shards: Sequence[SourceShard] = getattr(import_module(f"{__name__}.{module}"), function)(found, *arguments)
        return shards


@dataclass(frozen=True)
class Unread:
    """Numbers of documents or images, one in each file, that are known before they are read."""

    counts: Counter[str | None]
    """Number in each of the source's splits (None without splits), including those that will be left out."""
    text: Sequence[SourceFile] = ()
    """The files, if their sizes bound the number of characters."""

    def max_characters(self, splits: Set[str | None]) -> float:
        """Return the number of characters in some of the splits at most: of bytes, which are no fewer in UTF-8."""
        return sum(file.size for file in self.text if file.split in splits) if self.text else inf


def check_source(source: kinds.Source) -> Unread | None:
    """Check whether the settings of a source of local files fit them, as `open_source` does, but without reading more.

    It checks the names of all files and, in the first ones of each split, the header, schema, first line or names of
    arrays. Nothing is downloaded, and no file is read to its end.

    Returns:
        Numbers of documents or images if each file is one, otherwise None: the files would have to be read.

    Raises:
        ValueError: They do not fit; the message names the file and a hint.
    """
    with _where_to_get(source):
        match source.resolve():
            case kinds.NpySource() | kinds.MnistIdxSource() as found:
                open_source(found, Path())  # Opens one file, or looks whether two are there.
            case kinds.ImageFolderSource() as found:
                return Unread(Counter(file.split for file in find_classes(found)[0]))
            case kinds.UrlSource(columns=None, sample_by="document"):
                return Unread(Counter([None]))
            case found if hasattr(found, "pattern"):
                module = import_module(f"{__name__}.{READERS[type(found)][0]}")
                files = check_files(found, getattr(module, "check_head", None), CHECKED_FILES)
                if isinstance(found, kinds.TextSource) and found.sample_by == "document":
                    is_plain = found.detokenizer is None and not any(file.is_compressed for file in files)
                    return Unread(Counter(file.split for file in files), files if is_plain else ())
    return None


@contextmanager
def _where_to_get(source: kinds.Source) -> Iterator[None]:
    """Add to an error about files of the catalog that cannot be downloaded where to get them."""
    entry = find_entry(source.name) if isinstance(source, kinds.CatalogSource) else None
    if entry is None or entry.files is None:
        yield
        return
    if not Path(source.path).is_dir():
        raise ValueError(f"{source.path} is not a folder; it must contain {entry.title}. {entry.files}")
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}. {entry.files}") from None
