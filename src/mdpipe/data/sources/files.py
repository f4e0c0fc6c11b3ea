"""The user's files that a source reads: one file, or those of a folder that fit a pattern."""

from pathlib import Path


def matching_files(path: Path, pattern: str) -> list[tuple[str, Path]]:
    """(name, file), sorted by name: the path itself if it is a file, else the folder's files that fit the glob pattern.

    Names are relative to the folder, so they do not depend on where it lies.

    Raises:
        ValueError: the path does not exist, or no file fits.
    """
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist; correct the source's `path` in params.yaml")
    try:
        found = [(file.relative_to(path).as_posix(), file) for file in path.glob(pattern) if file.is_file()]
    except (ValueError, NotImplementedError) as error:
        raise ValueError(
            f"the source's pattern = {pattern!r} is no relative glob such as '**/*.txt' ({error})"
        ) from None
    if not found:
        raise ValueError(f"no file in the folder {path} fits {pattern!r}; correct the source's `path` or `pattern`")
    return sorted(found)


def decode_utf8(raw: bytes, where: str, first_byte: int = 0) -> str:
    """Decode the bytes that stand at `first_byte` of a file.

    Raises:
        ValueError: they are not UTF-8; the message begins with `where` and names the byte.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8: byte {first_byte + error.start} is 0x{raw[error.start]:02x} ({error.reason});"
            " convert it, for example with `iconv -f ENCODING -t UTF-8`"
        ) from None
