"""Text files and JSON lines, plain or compressed. `datasets` reads them too, but with ten times the memory, and without
the file and line of an error: docs/architecture.md has the measurements.

A file of lines is cut at line ends into ranges, which are read in parallel. A document is named by the byte at which
its line begins. Names are stored with the text and decide its order, so they never change.

Detokenizers undo the spaces that tokenized benchmark text has around punctuation. The zero-shot protocol of SEDD (Lou
et al. 2024), which MDLM and later work share, scores text after these rules. They follow the protocol even where plain
English would need more, and apply in the order of the code.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from mdpipe.data.raw import Document
from mdpipe.data.sources.files import (
    READ_BYTES,
    SourceFile,
    check_columns,
    check_files,
    group_files,
    open_decompressed,
)
from mdpipe.data.sources.writer import SourceShard
from mdpipe.file_formats import plain_text_notes
from mdpipe.messages import reason
from mdpipe.params.sources import DecodeErrors, DocumentSource, JsonLinesSource, TextSource, UrlSource

MAX_LINE = 64 * 2**20
"""Bytes of a line. A longer one is probably not text in lines, and several would not fit into memory."""
BYTE_DIGITS = 14
"""Byte positions are padded with zeros, so that names sort as lines do."""
MAX_UTF8_BYTES = 4
"""Bytes of a character in UTF-8, all but the first of which are 10...... in binary."""
HALF_A_PAIR = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which escapes can spell but UTF-8 cannot."""


def open_text(source: TextSource | JsonLinesSource) -> list[SourceShard]:
    """Return ranges of lines, or groups of files."""
    files = check_files(source, check_head)
    if isinstance(source, TextSource):
        for note in plain_text_notes(file.name for file in files):
            sys.stderr.write(f"{source.path}: {note}\n")
    return text_shards(source, files)


def text_shards(source: TextSource | JsonLinesSource | UrlSource, files: Sequence[SourceFile]) -> list[SourceShard]:
    """Return shards of these files: a document per file, per line, or per line of JSON."""
    if source.named_columns:
        # By name and colon, as in the documents' names, because "a-b" sorts before "a:" but after "a".
        files = sorted(files, key=lambda file: (file.split or "", f"{file.name}:"))
    elif not isinstance(source, JsonLinesSource) and source.sample_by == "document":
        groups = group_files(files)
        return [SourceShard(group[0].split, size, partial(_read_files, source, group)) for group, size in groups]
    return [
        SourceShard(lines.file.split, lines.size, partial(_read_lines, source, lines)) for lines in line_ranges(files)
    ]


def check_head(source: TextSource | JsonLinesSource, file: SourceFile) -> None:
    """Check the first line of JSON that is not blank."""
    if source.named_columns:
        with_empty = source.model_copy(update={"empty_documents": "keep"})
        next(_read_lines(with_empty, LineRange(file, 0, None), Counter()), None)


def join_texts(texts: Iterable[str | None]) -> str:
    """Return the text of a document in several columns: those that are not empty, joined by line breaks."""
    return "\n".join(filter(None, texts))


def make_document(source: DocumentSource, name: str, text: str, counts: Counter[str], where: str) -> Iterator[Document]:
    """Yield the document of a text, detokenized; nothing if it is empty and left out, which is counted.

    Raises:
        ValueError: It is empty and must not be; the message begins with `where`.
    """
    if not text.strip():
        if source.empty_documents == "error":
            within = f" in {' and '.join(map(repr, source.named_columns))}" if source.named_columns else ""
            raise ValueError(
                f"{where} has no text{within} but {text[:40]!r}; correct or remove it, or set the source's"
                " `empty_documents` in params.yaml to drop or keep"
            )
        if source.empty_documents == "drop":
            counts["empty rows left out"] += 1
            return
    yield Document(name, DETOKENIZERS[source.detokenizer](text) if source.detokenizer else text)


@dataclass(frozen=True)
class LineRange:
    """The lines of a file that begin at bytes [start, end); end None for all the rest."""

    file: SourceFile
    start: int
    end: int | None

    @property
    def size(self) -> int:
        """Return its size in bytes, compressed if the file is."""
        return (self.file.size if self.end is None else self.end) - self.start

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the byte at which each line begins, and the line without its end.

        Raises:
            ValueError: A line is too long, or a compressed file is broken.
        """
        with open_decompressed(self.file.path) as stream:
            position = self.start
            if self.start:
                # A line that begins before belongs to the range before; one that begins exactly here is ours.
                stream.seek(self.start - 1)
                position += len(stream.readline(MAX_LINE)) - 1
            while self.end is None or position < self.end:
                line = stream.readline(MAX_LINE + 1)
                if not line:
                    return
                if len(line) > MAX_LINE:
                    raise ValueError(
                        f"{self.file.path} has a line of more than {MAX_LINE:,} bytes that begins at byte"
                        f" {position:,}; is it text in lines? Cut the line, or take the file as one document"
                    )
                yield position, line.removesuffix(b"\n").removesuffix(b"\r")
                position += len(line)


def line_ranges(files: Sequence[SourceFile]) -> list[LineRange]:
    """Cut every file into ranges of READ_BYTES; a compressed file, which cannot be entered in its middle, is one."""
    ranges = []
    for file in files:
        starts = [0] if file.is_compressed else [*range(0, max(file.size, 1), READ_BYTES)]
        ends = [*starts[1:], None]
        ranges += [LineRange(file, start, end) for start, end in zip(starts, ends, strict=True)]
    return ranges


def _read_lines(
    source: TextSource | JsonLinesSource | UrlSource, lines: LineRange, counts: Counter[str]
) -> Iterator[Document]:
    """Yield at most one document per line, without a byte-order mark; errors name file and line."""
    file, fields = lines.file, [*source.named_columns]
    counts["files"] += lines.start == 0  # Other ranges of a long file do not count it again.
    for position, raw in lines.lines():
        counts["rows"] += 1
        try:
            text = _decode(raw, source.decode_errors, counts, "it", position)
            if text is not None and fields and not isinstance(source, TextSource):
                text = _text_of_json(source, fields, text, counts)
            if text is not None:
                name = f"{file.name}:{position:0{BYTE_DIGITS}d}"
                yield from make_document(source, name, text, counts, "the line")
        except ValueError as error:
            raise ValueError(f"{file.path}:{_line_number(file.path, position)}: {error}") from None


def _line_number(path: Path, position: int) -> int:
    """Return which line begins at this byte, counted from 1."""
    with open_decompressed(path) as stream:
        number = 1
        while position > 0 and (block := stream.read(min(position, 2**20))):
            number += block.count(b"\n")
            position -= len(block)
    return number


class _Entry(dict[str, Any]):
    """A JSON object that knows its names as they are written, of which two may be equal."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.names = [name for name, _ in pairs]


def _text_of_json(
    source: JsonLinesSource | UrlSource, fields: Sequence[str], line: str, counts: Counter[str]
) -> str | None:
    """Return the text in some fields of a JSON object; None for a blank line, or if it is left out."""
    if not line.strip():
        return None
    if line.lstrip().startswith("["):
        raise ValueError("this begins a JSON array; write one object per line, for example with `jq -c '.[]' FILE`")
    try:
        entry = json.loads(line, object_pairs_hook=_Entry)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({reason(error)}); correct the line") from None
    if not isinstance(entry, _Entry):
        example = ", ".join(f'"{field}": text' for field in fields)
        raise ValueError(f"this is not a JSON object but {type(entry).__name__}; write {{{example}}} per line")  # noqa: TRY004
    for field in fields:
        if entry.names.count(field) != 1:
            check_columns(source, "the line", entry.names, "field")
        if (text := entry[field]) is not None and not isinstance(text, str):
            raise ValueError(f"there is no text under {field!r} but {text!r:.60}; correct or remove the line")
    text = join_texts(map(entry.get, fields))
    if not HALF_A_PAIR.search(text):
        return text
    if source.decode_errors == "strict":
        raise ValueError(
            f"the line has half a surrogate pair in {' or '.join(map(repr, fields))}, which UTF-8 cannot hold; correct"
            " it, or set the source's `decode_errors` in params.yaml to replace or ignore"
        )
    _count_broken(source.decode_errors, counts)
    return HALF_A_PAIR.sub("\ufffd", text) if source.decode_errors == "replace" else None


def _read_files(
    source: TextSource | UrlSource, files: Sequence[SourceFile], counts: Counter[str]
) -> Iterator[Document]:
    """Yield a document per file, unchanged except for a byte-order mark; a long one comes in parts."""
    counts["files"] += len(files)
    for file in files:
        broken = Counter[str]()
        # Before the first part is yielded, which could not be taken back.
        if source.decode_errors != "ignore" or (all(_file_parts(source, file, broken)) and not broken):
            yield from _read_parts(source, file, _file_parts(source, file, broken), counts)
        counts.update(dict.fromkeys(broken, 1))  # Documents are counted, not their parts.


def _read_parts(
    source: TextSource | UrlSource, file: SourceFile, parts: Iterator[tuple[str, bool]], counts: Counter[str]
) -> Iterator[Document]:
    """Yield the document of a file, or its parts if there are several."""
    first = next(parts, ("", False))
    if not first[1]:
        yield from make_document(source, file.name, first[0], counts, str(file.path))
        return
    if source.detokenizer is not None:
        raise ValueError(
            f"{file.path} has more than {READ_BYTES:,} bytes, but `detokenizer` needs a document as a whole; set"
            " the source's `sample_by` in params.yaml to line"
        )
    has_text = any(text.strip() for text, _ in _file_parts(source, file, Counter()))
    if has_text or [*make_document(source, file.name, "", counts, str(file.path))]:
        for number, (text, unfinished) in enumerate(chain([first], parts)):
            yield Document(file.name, text, number, unfinished)


def _file_parts(source: TextSource | UrlSource, file: SourceFile, counts: Counter[str]) -> Iterator[tuple[str, bool]]:
    """Yield the text of each part of a file, which ends at white space if there is any, and whether more follows."""
    with open_decompressed(file.path) as stream:
        first_byte, block = 0, stream.read(READ_BYTES)
        while block:
            following = stream.read(READ_BYTES)
            end = last_gap(block) if following else len(block)
            text = _decode(block[:end], source.decode_errors, counts, str(file.path), first_byte)
            if text:
                yield text, bool(following)
            first_byte += end
            block = block[end:] + following


def last_gap(block: bytes) -> int:
    """Return where a block is cut: after its last white space, or else before its last character begins."""
    gap = max(block.rfind(b" "), block.rfind(b"\n")) + 1
    if gap:
        return gap
    for first in range(len(block) - 1, max(-1, len(block) - 1 - MAX_UTF8_BYTES), -1):
        if block[first] & 0xC0 != 0x80:
            return first
    return len(block)


def _decode(raw: bytes, errors: DecodeErrors, counts: Counter[str], where: str, first_byte: int = 0) -> str | None:
    """Return the text of bytes from `first_byte` of a file on, without a byte-order mark, or None to leave it out."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if errors == "strict":
            raise ValueError(
                f"{where} is not UTF-8: byte {first_byte + error.start} is 0x{raw[error.start]:02x} ({error.reason});"
                " convert it, for example with `iconv -f ENCODING -t UTF-8`, or set the source's `decode_errors` in"
                " params.yaml to replace or ignore"
            ) from None
        _count_broken(errors, counts)
        if errors == "ignore":
            return None
        text = raw.decode("utf-8", errors="replace")
    return text if first_byte else text.removeprefix("\ufeff")


def _count_broken(errors: DecodeErrors, counts: Counter[str]) -> None:
    counts[f"documents with broken UTF-8 {'replaced' if errors == 'replace' else 'left out'}"] += 1


def detokenize_wikitext(text: str) -> str:
    """Restore WikiText as SEDD's data preparation does (Lou et al. 2024).

    " @-@ ", " @,@ " and " @.@ " become the mark. Separate apostrophes after "s", " 's" and : ; . ! ? and commas join
    the word before, brackets and quotes what they enclose, "=" of a heading each other, degree signs both sides. Spaces
    at line breaks go, and " N " becomes " 1 ".
    """
    text = text.replace("s '", "s'")
    for mark in "-,.":
        text = text.replace(f" @{mark}@ ", mark)
    for mark in ":;.!?,":
        text = _join_to_the_word_before(text, mark)
    for opening, closing in ("()", "[]", "{}", '""', "''"):
        enclosed = re.compile(rf"(\{opening})([^\{closing}]*)(\{closing})")
        text = enclosed.sub(lambda found: found[1] + found[2].strip() + found[3], text)
    for length in (4, 3, 2):
        text = text.replace(" ".join("=" * length), "=" * length)
    text = text.replace(" \u00b0 ", "\u00b0")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    return text.replace(" N ", " 1 ").replace(" 's", "'s")


def detokenize_ptb(text: str) -> str:
    r"""Restore Penn Treebank as SEDD's data preparation does (Lou et al. 2024).

    " 's", " n't" and a separate apostrophe after "s" join the word before. A line break loses the spaces around it, and
    "\/" becomes "/". Numbers were replaced by N: " N " becomes " 1 ", and "$" or "#" joins a 1 that follows. "<unk>"
    becomes "?".
    """
    text = text.replace(" 's", "'s").replace("s ' ", "s' ").replace(" n't", "n't")
    text = text.replace(" \n ", "\n").replace(r"\/", "/")
    text = re.sub(" N(?= )", " 1", text)
    text = text.replace("$ 1", "$1").replace("# 1", "#1")
    return text.replace("<unk>", "?")


def detokenize_lm1b(text: str) -> str:
    """Restore One Billion Words as SEDD's data preparation does (Lou et al. 2024).

    "http : / / " and "https : / / " lose their spaces. An apostrophe before a letter joins the word before, which
    restores contractions ("don 't", "it 's"), and so do ? and !, also at the end, and , : and ; within the line. A full
    stop joins a word of letters and digits after a space. A separate "/" joins both sides, quotes and brackets join
    what they enclose, "$" and "£" what follows.
    """
    for scheme in ("http", "https"):
        text = text.replace(f"{scheme} : / / ", f"{scheme}://")
    text = re.sub(r" '(?=\w)", "'", text)
    text = re.sub(r"( \w+) \. ", r"\1. ", text)
    text = re.sub(r"( \w+) \.$", r"\1.", text)
    for mark in "?!":
        text = _join_to_the_word_before(text, mark)
        text = re.sub(rf" \{mark}$", mark, text)
    for mark in ",:;":
        text = _join_to_the_word_before(text, mark)
    text = text.replace(" / ", "/")
    for opening, closing in ('""', "''", "()", "[]"):
        text = re.sub(rf"\{opening} ([^\{opening}\{closing}]+) \{closing}", rf"{opening}\1{closing}", text)
    for currency in "$£":
        text = text.replace(f"{currency} ", currency)
    return text


def detokenize_lambada(text: str) -> str:
    """Restore LAMBADA as SEDD's data preparation does (Lou et al. 2024).

    Curly double quotes become straight; the text begins with a line break and has no other space around it.
    """
    return "\n" + text.replace("\u201c", '"').replace("\u201d", '"').strip()


def detokenize_scientific_papers(text: str) -> str:
    """Apply WikiText's rules and then LM1B's, as MDLM does for PubMed and arXiv (Sahoo et al. 2024)."""
    return detokenize_lm1b(detokenize_wikitext(text))


DETOKENIZERS: Mapping[str, Callable[[str], str]] = {
    "wikitext": detokenize_wikitext,
    "ptb": detokenize_ptb,
    "lm1b": detokenize_lm1b,
    "lambada": detokenize_lambada,
    "scientific_papers": detokenize_scientific_papers,
}


def _join_to_the_word_before(text: str, mark: str) -> str:
    return text.replace(f" {mark} ", f"{mark} ")
