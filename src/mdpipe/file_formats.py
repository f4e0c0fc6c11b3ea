"""Which kind of source reads which files, by their names: params.yaml is checked by it, and what `download` finds."""

from pathlib import PurePosixPath

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TAR_SUFFIXES = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
"""Short for .tar.gz and its kin."""

TEXT_KINDS = ("csv", "jsonl", "table", "text_files")
KIND_OF = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "table",
    ".arrow": "table",
    ".tar": "image_tar",
    ".npz": "arrays",
    ".npy": "arrays",
}
"""The kind that reads files of this ending, packed or not."""
EXPORT = "save it as CSV (UTF-8) and use `kind: csv`"
UNPACK = "unpack it, and read what is in it"
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
"""What to do with files that no kind reads."""
READABLE = {
    "csv": (".csv", ".tsv"),
    "image_table": (".parquet", ".arrow"),
    "image_tar": (".tar",),
    "jsonl": (".jsonl", ".ndjson"),
    "table": (".parquet", ".arrow"),
    "text_files": (".csv", ".tsv", ".jsonl", ".ndjson"),
}
"""Of the endings above those that a kind reads; a kind that is not here looks at its files itself."""


def ending(name: str) -> str:
    """Return the ending that says what is in a file, or in those that fit a pattern: ".csv" for "*.csv.gz"."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in TAR_SUFFIXES:
        return ".tar"
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def refusal(kind: str, suffix: str) -> str | None:
    """Return why a kind does not read files of this ending and what to do with them; None where it may read them."""
    if kind not in READABLE or suffix in READABLE[kind]:
        return None
    if suffix in HINTS:
        return f"`kind: {kind}` does not read {suffix} files: {HINTS[suffix]}"
    if suffix in KIND_OF:
        text = " (pictures)" if kind in TEXT_KINDS and KIND_OF[suffix] not in TEXT_KINDS else ""
        other = "image_table" if kind == "image_tar" and KIND_OF[suffix] == "table" else KIND_OF[suffix]
        return f"`kind: {kind}` does not read {suffix} files{text}: use `kind: {other}`"
    return None
