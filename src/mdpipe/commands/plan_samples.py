"""A sample of local text, to estimate a source without reading all of it: the beginning of some of its files.

The source's own reader turns it into documents, so columns that are not read, quotes, escapes, and documents that are
left out count as in the `download` stage.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from mdpipe.data.raw import Document
from mdpipe.data.sources.csv import open_csv
from mdpipe.data.sources.files import SourceFile, compression, open_decompressed
from mdpipe.data.sources.text import last_gap, text_shards
from mdpipe.params.sources import CsvSource, JsonLinesSource, ParquetSource, TextSource, UrlSource

MAX_FILES, SAMPLED_BYTES, SAMPLED_ROWS = 16, 2**20, 512
"""Most files that are read of a source, and about how many bytes, or rows of tables, of all of them."""
DENSITY = {".gz": 1, ".bz2": 1.3, ".xz": 1.3, ".zst": 1}
"""Bytes of English text per compressed byte, relative to zlib's."""

LocalText = TextSource | JsonLinesSource | CsvSource | ParquetSource | UrlSource


def read_sample(source: LocalText, files: Sequence[SourceFile]) -> tuple[list[Document], list[float]]:
    """Return some documents, and the size of each file relative to that of all these documents.

    Raises:
        ValueError: a file that was read is broken.
    """
    if isinstance(source, ParquetSource):
        from mdpipe.data.sources.tables import count_rows

        sizes = [count_rows(file.path) for file in files]
    else:
        sizes = [file.size for file in files]
    # At evenly spaced positions in all of them, so that large files are not missed.
    positions = (np.arange(MAX_FILES) + 0.5) / MAX_FILES * sum(sizes)
    chosen = [files[number] for number in np.unique(np.searchsorted(np.cumsum(sizes), positions))]
    sample, read = list[Document](), 0.0
    for file in chosen:
        if isinstance(source, ParquetSource):
            documents, size = _first_rows(source, file, SAMPLED_ROWS // len(chosen))
        else:
            documents, size = _first_lines(source, file, SAMPLED_BYTES // len(chosen))
        sample, read = sample + documents, read + size
    return sample, [size / max(read, 1) for size in sizes]


def _first_rows(source: ParquetSource, file: SourceFile, limit: int) -> tuple[list[Document], float]:
    """Return the first documents of a table, at most `limit`, and how many of its rows they take."""
    from mdpipe.data.sources.tables import open_parquet

    shard, counts = open_parquet(source.model_copy(update={"path": str(file.path)}))[0], Counter[str]()
    return list(islice(cast("Iterator[Document]", shard.read(counts)), limit)), counts["rows"]


def _first_lines(
    source: TextSource | JsonLinesSource | CsvSource | UrlSource, file: SourceFile, limit: int
) -> tuple[list[Document], float]:
    """Return the documents in about the first `limit` bytes of a file, and how many of its bytes they take."""
    with open_decompressed(file.path) as stream:
        head = stream.read(limit) + stream.readline(limit)
        is_cut = bool(stream.read(1))
    suffix, size, documents = compression(file.path) or "", float(file.size), list[Document]()
    if is_cut:
        head = head[: last_gap(head)]
        size = len(zlib.compress(head)) / DENSITY[suffix] if suffix else len(head)
    with TemporaryDirectory() as folder:
        path = Path(folder, file.path.name.removesuffix(suffix))
        path.write_bytes(head)
        try:
            if isinstance(source, CsvSource):
                [shard] = open_csv(source.model_copy(update={"path": str(path)}))
            else:
                [shard] = text_shards(source, [SourceFile(file.name, path, None)])
            for document in cast("Iterator[Document]", shard.read(Counter())):
                documents.append(document)
        except ValueError as error:
            if not (is_cut and documents):
                raise ValueError(str(error).replace(str(path), str(file.path))) from None
            # The last row is cut within quotes: half of one is lost, on average.
            size *= len(documents) / (len(documents) + 0.5)
    return documents, size
