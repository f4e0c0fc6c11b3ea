"""Files that are not what a source reads, by their names and by how they begin: refused with what to do instead."""

from collections.abc import Sequence
from pathlib import Path

from mdpipe.data.sources.files import Found
from mdpipe.file_formats import COMPRESSED, READABLE, ending, refusal

MAGIC = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"\x1f\x8b": ".gz",
    b"BZh9": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"%PDF-": ".pdf",
    b"\x93NUMPY": ".npy",
    b"7z\xbc\xaf\x27\x1c": ".7z",
    b"Rar!\x1a\x07": ".rar",
}
"""How files of some formats begin."""


def refuse_other_formats(files: Sequence[Found], kind: str) -> None:
    """Refuse files that this kind does not read: all by their names, the first also by how it begins.

    Raises:
        ValueError: there is one; the message names it and what to do.
    """
    for found in files:
        if (why := refusal(kind, ending(found.name))) is not None:
            raise ValueError(f"{found.file} is not for this source: {why}, or narrow the source's `pattern`")
    first = files[0]
    suffix = _beginning(first.file)
    if suffix is None or first.compressed or suffix in READABLE[kind]:
        return
    if suffix in COMPRESSED:
        raise ValueError(f"{first.file} is packed as {suffix} files are; rename it to {first.file.name}{suffix}")
    raise ValueError(f"{first.file} begins as a {suffix} file does: {refusal(kind, suffix)}")


def _beginning(file: Path) -> str | None:
    with file.open("rb") as stream:
        head = stream.read(max(map(len, MAGIC)))
    return next((suffix for magic, suffix in MAGIC.items() if head.startswith(magic)), None)
