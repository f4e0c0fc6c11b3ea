"""Sizes of the user's text files before they are read: from all of small files, and from blocks of large ones.

The blocks are whole lines or rows from all over the files, and the source's own reader turns them into documents. So
columns that are not read, quotes, escapes, and documents that are left out count as in the `download` stage. A
compressed file is unpacked from its beginning, as far as `UNPACKED_BYTES` reach.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast

from mdpipe.data.raw import KEY, Document
from mdpipe.data.sources.csv import MAX_CHARACTERS
from mdpipe.data.sources.files import SourceFile, compression, find_files
from mdpipe.data.tokenizers import Tokenizer
from mdpipe.params.data import Packing
from mdpipe.params.sources import CsvSource, JsonLinesSource, TextSource

SAMPLED_BYTES = 2**20
"""Most bytes that are read of a source's files: all of small ones, blocks from all over large ones."""
BLOCK = 2**14
"""Bytes of a block: some lines, and many blocks."""
UNPACKED_BYTES = 16 * 2**20
"""Most bytes that are unpacked of a source's compressed files, which takes a fraction of a second."""
CHUNK = 2**16
"""Bytes that are unpacked at once."""
MAX_FILES = 64
"""Files that are opened of a source, besides those that are larger than this fraction of it."""
MAX_ROW = 2**20
"""Bytes of the longest line or row in a block of a larger file; a file with longer ones has an unknown size."""
MAX_CHARACTER_BYTES = 4
"""Bytes of a character in any encoding; blocks of a table begin at multiples of it."""
MAX_STARTS = 200
"""Line ends of a block that are tried as the end of a row: others are within quotes."""
TOKENIZED_CHARS, TOKENIZED_TEXTS = 2**17, 500
"""About the most characters and texts that are tokenized to count the tokens per character."""
CACHED = 64
"""Pairs of texts and tokenizers whose tokens are counted once in a plan."""
ENDINGS = {"text": ".txt", "jsonl": ".jsonl", "csv": ".csv"}

FileSource = TextSource | JsonLinesSource | CsvSource


@dataclass
class TextSize:
    """The size of the text files of one split, extrapolated from what was read."""

    characters: float = 0
    documents: float = 0
    content: float = 0
    """Bytes of text in UTF-8."""
    disk: float = 0
    """Bytes of their documents and keys in data/raw."""
    size: int = 0
    """Bytes of the files."""
    unread: int = 0
    """Bytes of the files that were not read; of compressed files, in proportion to what was not unpacked."""
    texts: list[str] = field(default_factory=list)
    """Texts of the documents that were read; parts of long ones if a file is a document."""


def text_sizes(source: FileSource) -> dict[str | None, TextSize]:
    """Return the size of the files of each split of a source.

    Raises:
        ValueError: a file does not exist, or the part of it that was read is broken or has too long lines.
    """
    by_split: dict[str | None, list[SourceFile]] = {}
    for file in find_files(Path(source.path), source.pattern):
        by_split.setdefault(file.split, []).append(file)
    return {split: _size_of(source, files, len(by_split)) for split, files in by_split.items()}


def _size_of(source: FileSource, files: Sequence[SourceFile], num_splits: int) -> TextSize:
    """Return the sum of the sizes of large files, which are all read, and of small ones, some of which are."""
    total, size = sum(file.size for file in files), TextSize()
    large = [file for file in files if len(files) <= MAX_FILES or file.size * MAX_FILES > total]
    names = {file.name for file in large}
    small = [file for file in files if file.name not in names]
    chosen = [small[(2 * number + 1) * len(small) // (2 * MAX_FILES)] for number in range(MAX_FILES)] if small else []
    for group, read in ((large, large), (small, chosen)):
        if group:
            share = sum(file.size for file in group) / max(total, 1) / num_splits
            _add(size, source, group, read, share)
    return size


def _add(
    size: TextSize, source: FileSource, files: Sequence[SourceFile], chosen: Sequence[SourceFile], share: float
) -> None:
    """Add files, by the documents per byte of the chosen ones and their unpacked bytes per byte."""
    sampled, packed, unpacked = 0, 0, 0.0
    count = characters = content = disk = unread = 0
    chosen_bytes = max(sum(file.size for file in chosen), 1)
    for file in chosen:
        part = share * file.size / chosen_bytes
        sample = _sample(source, file, int(part * SAMPLED_BYTES), int(part * UNPACKED_BYTES))
        sampled, packed, unpacked = sampled + sample.size, packed + file.size, unpacked + sample.unpacked
        unread += file.size - round(file.size * sample.size / max(sample.unpacked, sample.size, 1))
        for document in _documents(source, file, sample):
            count += 1
            characters += len(document.text)
            content += len(document.text.encode())
            disk += _raw_bytes(document)
            size.texts.append(document.text)
    if not sampled and packed:
        raise ValueError(f"{chosen[0].path} has lines or rows of more than {MAX_ROW:,} bytes")
    all_bytes = sum(file.size for file in files)
    factor = unpacked / max(packed, 1) * all_bytes / max(sampled, 1)
    if _is_whole(source):
        # Names differ in length, and there are as many as files, however few of their bytes were read.
        disk -= sum(_raw_bytes(Document(file.name, "")) for file in chosen[:count])
        size.documents += len(files)
        size.disk += disk * factor + sum(_raw_bytes(Document(file.name, "")) for file in files)
    else:
        size.documents += count * factor
        size.disk += disk * factor
    size.characters += characters * factor
    size.content += content * factor
    size.size += all_bytes
    size.unread += all_bytes - sum(file.size for file in chosen) + unread


def _is_whole(source: FileSource) -> bool:
    """Return True if a file is one document."""
    return isinstance(source, TextSource) and source.sample_by == "document"


def _raw_bytes(document: Document) -> int:
    """Return the bytes of a document in data/raw, with its line end and key."""
    entry = {"name": document.name, "text": document.text}
    return len(json.dumps(entry, ensure_ascii=False).encode()) + 1 + KEY.itemsize


@dataclass
class _Sample:
    """Part of a file: whole lines, or the rows of a table in UTF-8 without their header."""

    content: bytes
    size: int
    """Bytes of this part in the unpacked file."""
    unpacked: float
    """Bytes of the unpacked file, estimated if it was not unpacked to its end."""
    header: tuple[str, ...] = ()
    """Names of the columns."""


def _sample(source: FileSource, file: SourceFile, limit: int, unpacked_limit: int) -> _Sample:
    """Read at most about `limit` bytes of a file, or a block if that is more."""
    limit = max(limit, BLOCK)
    with ExitStack() as stack:
        stream: IO[bytes]
        if file.is_compressed:
            content, unpacked = _unpack(file, max(unpacked_limit, BLOCK))
            stream, size = io.BytesIO(content), len(content)
        else:
            stream = stack.enter_context(file.path.open("rb"))
            size, unpacked = file.size, file.size
        if isinstance(source, CsvSource):
            return _sample_rows(source, stream, size, limit, unpacked)
        length = size if size <= limit else BLOCK
        read_block = _text_block if _is_whole(source) else _line_block
        content = b"".join(read_block(stream, start, length) for start in _starts(size, length, limit))
        return _Sample(content, len(content), unpacked)


def _starts(size: int, length: int, limit: int) -> Iterator[int]:
    """Yield where blocks start: in the middle of as many equal parts of the file; at 0 if it is one block."""
    count = 1 if length >= size else limit // length
    for number in range(count):
        yield max(0, (2 * number + 1) * size // (2 * count) - length // 2)


def _unpack(file: SourceFile, limit: int) -> tuple[bytes, float]:
    """Unpack lines of about `limit` bytes, and return them and the estimated bytes of the whole file when unpacked.

    Readers read ahead: packed bytes count when the reader asks for more, by what was unpacked before.

    Raises:
        ValueError: the file is broken.
    """
    content, packed_bytes, unpacked_bytes = bytearray(), 0, 0
    try:
        with file.path.open("rb", buffering=0) as packed:
            reader = _reader(file.path, packed)
            while len(content) < limit:
                before, position = len(content), packed.tell()
                block = reader.read(CHUNK)
                if not block:
                    return bytes(content), len(content)
                content += block
                if packed.tell() > position:
                    packed_bytes, unpacked_bytes = position, before
            most = packed.tell()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"{file.path} is broken: {error}") from None
    consumed = min(packed_bytes * len(content) / unpacked_bytes, most) if unpacked_bytes else most
    return bytes(content[: content.rfind(b"\n") + 1] or content), len(content) * file.size / consumed


def _reader(path: Path, packed: IO[bytes]) -> IO[bytes]:
    match compression(path):
        case ".gz":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=packed))
        case ".bz2":
            return cast("IO[bytes]", bz2.BZ2File(packed))
        case ".xz":
            return cast("IO[bytes]", lzma.LZMAFile(packed))
    import pyarrow

    return cast("IO[bytes]", pyarrow.CompressedInputStream(packed, "zstd"))


def _text_block(stream: IO[bytes], start: int, length: int) -> bytes:
    """Return a block of text; characters that are cut at its ends are left out."""
    stream.seek(start)
    block = stream.read(length)
    return block if start == 0 and not stream.read(1) else block.decode(errors="ignore").encode()


def _line_block(stream: IO[bytes], start: int, length: int) -> bytes:
    """Return the lines that begin in a block; none if they are too long."""
    stream.seek(max(0, start - 1))
    if start and not stream.readline(MAX_ROW).endswith(b"\n"):
        return b""
    if (rest := start + length - stream.tell()) <= 0:
        return b""
    block = stream.read(rest)
    if not block.endswith(b"\n"):
        block += stream.readline(MAX_ROW)
    if block.endswith(b"\n") or not stream.read(1):
        return block
    return block[: block.rfind(b"\n") + 1]


def _sample_rows(source: CsvSource, stream: IO[bytes], size: int, limit: int, unpacked: float) -> _Sample:
    """Read whole rows from all over a table.

    Raises:
        ValueError: the table has no header.
    """
    csv.field_size_limit(MAX_CHARACTERS)
    start_bytes = stream.read(MAX_ROW)
    encoding = _encoding_within(source.encoding, start_bytes)
    head = start_bytes.decode(encoding, errors="replace")
    first = len(head) - len(head.removeprefix("\ufeff"))
    names, first = _first_row(head, first, source.delimiter) if source.header is True else (source.header, first)
    length = size if size <= limit else BLOCK
    parts, sampled = [], 0
    for start in (start - start % MAX_CHARACTER_BYTES for start in _starts(size, length, limit)):
        for tail in (BLOCK, MAX_ROW):
            stream.seek(start)
            decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
            text = decoder.decode(stream.read(length))
            end = len(text)
            text += decoder.decode(rest := stream.read(tail))
            begin, stop = _rows_within(text, end, source.delimiter, len(names), first if start == 0 else None)
            if stop >= end or len(rest) < tail:
                break
        parts.append(text[begin:stop])
        sampled += len(parts[-1].encode(encoding, errors="replace"))
    if length >= size:
        sampled = size  # With the header.
    return _Sample("".join(parts).encode(errors="replace"), sampled, unpacked, tuple(names))


def _encoding_within(encoding: str, start: bytes) -> str:
    """Return the encoding of a file's middle, which has no byte-order mark to tell the order."""
    name = codecs.lookup(encoding).name
    if name not in ("utf-16", "utf-32"):
        return encoding
    is_big = start.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    return f"{name}-{'be' if is_big else 'le'}"


def _first_row(text: str, position: int, delimiter: str) -> tuple[list[str], int]:
    """Return the first row of a table from this position that is not blank, and where it ends."""
    lines = _Lines(text, position)
    try:
        return next(row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row), lines.position
    except (StopIteration, csv.Error):
        raise ValueError("the table has no header") from None


def _rows_within(text: str, end: int, delimiter: str, width: int, first: int | None) -> tuple[int, int]:
    """Return where the rows that begin before `end` begin and end; twice the same if none is found.

    Unless their beginning `first` is known, it is the first line end after which all rows have the same width: others
    are within quotes. Of a single column, it is one before quotes, if there is any: lines of text have that width, too.
    """
    starts = [first] if first is not None else _line_starts(text[:end], '"' if width == 1 else "")
    for start in starts:
        if (stop := _end_of_rows(text, start, end, delimiter, width)) is not None:
            return start, stop
    return 0, 0


def _line_starts(text: str, before: str) -> list[int]:
    found = [match.end() for match in islice(re.finditer("\n(?=" + before + ")", text), MAX_STARTS)]
    return found if found or not before else _line_starts(text, "")


def _end_of_rows(text: str, start: int, end: int, delimiter: str, width: int) -> int | None:
    """Return where the rows from `start` that begin before `end` end; None if they are no rows of this width."""
    lines, stop = _Lines(text, start), start
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            if row and len(row) != width:
                return None
            stop = lines.position
            if stop >= end:
                break
    except csv.Error:
        if lines.position < len(text):
            return None
    return stop


class _Lines:
    """Iterate over the lines of a text, whose position is after the newest one."""

    def __init__(self, text: str, position: int) -> None:
        self.position = position
        self._lines = io.StringIO(text, newline="")
        self._lines.seek(position)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if not (line := self._lines.readline()):
            raise StopIteration
        self.position += len(line)
        return line


def _documents(source: FileSource, file: SourceFile, sample: _Sample) -> Iterator[Document]:
    """Yield the documents of a sample, by the source's reader, with names as the file's documents have."""
    from mdpipe.data.sources import open_source

    if not sample.content:
        return
    changes: dict[str, object] = {}
    if isinstance(source, CsvSource):
        changes = {"header": list(sample.header), "encoding": "utf-8"}
    elif _is_whole(source):
        changes = {"empty_documents": "keep"}  # A block of white space is within some text.
    with TemporaryDirectory() as folder:
        path = Path(folder, "sample").with_suffix(ENDINGS[source.kind])
        path.write_bytes(sample.content)
        for shard in open_source(source.model_copy(update={**changes, "path": str(path)}), Path(folder)):
            for document in cast("Iterator[Document]", shard.read(Counter())):
                yield Document(file.name + document.name.removeprefix(path.name), document.text)


def choose_texts(texts: Sequence[str]) -> tuple[str, ...]:
    """Return texts from all over the sequence, to be tokenized."""
    steps = (sum(map(len, texts)) // TOKENIZED_CHARS, len(texts) // TOKENIZED_TEXTS)
    step = min(max(1, *steps), max(1, len(texts)))
    return tuple(text[:TOKENIZED_CHARS] for text in texts[step // 2 :: step])


@lru_cache(CACHED)
def tokens_per_character(texts: tuple[str, ...], tokenizer: Tokenizer, packing: Packing) -> tuple[float, float]:
    """Return the tokens per character of texts, and the further ones per document, which end or separate documents."""
    from mdpipe.data.tokenize.token_stream import TokenStream

    with TemporaryDirectory() as folder, ExitStack() as files:
        stream = TokenStream(Path(folder, "tokens.npy"), tokenizer, packing, files)
        for text in texts:
            stream.append(Document("", text))
        counts = stream.counts
    ends = counts["documents"] if packing.append_eos or tokenizer.eos_separates_words else 0
    return (counts["tokens"] - ends) / max(sum(map(len, texts)), 1), ends / max(len(texts), 1)
