"""The files that each kind of source reads, by their names: checked in params.yaml and for files that are found."""

from collections.abc import Iterable
from pathlib import PurePosixPath

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TAR_SUFFIXES = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
"""Short for .tar.gz and its kin."""

TEXT_KINDS = ("csv", "jsonl", "parquet", "text")
KIND_OF = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "parquet",
    ".tar": "image_tar",
    ".npz": "npy",
    ".npy": "npy",
}
"""The kind that reads files of this ending, compressed or not."""
EXPORT = "save it as CSV (UTF-8) and use `kind: csv`"
UNPACK = "unpack it, and read the files in it"
HINTS = {
    ".xlsx": EXPORT,
    ".xls": EXPORT,
    ".ods": EXPORT,
    ".zip": UNPACK,
    ".rar": UNPACK,
    ".7z": UNPACK,
    ".pdf": "convert it to text, for example with `pdftotext`",
    ".docx": "save it as plain text (UTF-8)",
}
"""Hints for files that no kind reads."""
SUFFIXES_OF = {
    kind: tuple(suffix for suffix in KIND_OF if KIND_OF[suffix] == kind)
    for kind in ("csv", "image_tar", "jsonl", "parquet")
}
SUFFIXES_OF |= {"parquet_images": SUFFIXES_OF["parquet"], "text": SUFFIXES_OF["csv"] + SUFFIXES_OF["jsonl"]}
"""The endings above that a kind reads; a kind that is not listed checks its files itself."""


def ending(name: str) -> str:
    """Return the ending that tells the format of a file or of a glob's files: ".csv" for "*.csv.gz"."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in TAR_SUFFIXES:
        return ".tar"
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def plain_text_notes(names: Iterable[str]) -> list[str]:
    """Return a note for each ending of files read as plain text that another kind would read as rows of a table."""
    endings = sorted({ending(name) for name in names} & KIND_OF.keys())
    return [f"{suffix} files are read as plain text; `kind: {KIND_OF[suffix]}` reads their rows" for suffix in endings]


def refusal(kind: str, suffix: str) -> str | None:
    """Return why a kind does not read files of this ending and what to do; None if it may read them."""
    if kind not in SUFFIXES_OF or suffix in SUFFIXES_OF[kind]:
        return None
    if suffix in HINTS:
        return f"`kind: {kind}` does not read {suffix} files: {HINTS[suffix]}"
    if suffix in KIND_OF:
        text = " (images)" if kind in TEXT_KINDS and KIND_OF[suffix] not in TEXT_KINDS else ""
        other = "parquet_images" if kind == "image_tar" and KIND_OF[suffix] == "parquet" else KIND_OF[suffix]
        return f"`kind: {kind}` does not read {suffix} files{text}: use `kind: {other}`"
    return None
