"""Extract a member of a zip archive safely: its name chooses no path, and it may not be larger than it says."""

import errno
import lzma
import re
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from filelock import FileLock

from mdpipe.data.artifacts.files import explain_disk_full
from mdpipe.data.sources.files import BLOCK, MAX_EXPANSION
from mdpipe.messages import printable, reason

LOCAL_HEADER = b"PK\x03\x04"
"""How the first member of an archive begins."""


def extract_member(archive: Path, member: str, folder: Path) -> Path:
    """Extract a member into the folder, unless that was done since the archive came; return the file.

    Its name is that of the archive and of the member, with slashes spelled as in a URL: two members never share a file.
    Processes that want the same member at once take turns, and the later ones find it.

    Raises:
        ValueError: no zip archive, no such member, one whose name leads out of the archive, a decompression bomb, a
            broken member, or a disk that is too small.
    """
    if _leads_out(member) or ":" in member or not PurePosixPath(member.replace("\\", "/")).parts:
        raise ValueError(f"member = {member!r} leads out of {archive}; name a file that is within it")
    escaped = re.sub(r"[%/\\]", lambda sign: f"%{ord(sign[0]):02X}", member)
    target = folder / f"{archive.name}.{escaped}"
    try:
        with zipfile.ZipFile(archive) as files, FileLock(target.with_name(f".{target.name}.lock")):
            entry = _find(files, archive, member)
            if not _is_extracted(target, archive, entry):
                _check_size(entry, archive, folder)
                _extract(files, entry, target)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, UnicodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # a full disk is not the archive's fault
        raise ValueError(
            f"{archive} is truncated or no zip archive ({reason(error)}); delete it and run again"
        ) from None
    return target


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def _find(files: zipfile.ZipFile, archive: Path, member: str) -> zipfile.ZipInfo:
    names = files.namelist()
    unsafe = next(filter(_leads_out, names), None)
    if unsafe is not None:
        raise ValueError(f"{archive} has a member {unsafe!r} that leads out of it; it is not to be trusted")
    if member not in names or member.endswith("/"):
        there = ", ".join(sorted(printable(name) for name in names if not name.endswith("/"))[:10])
        raise ValueError(f"{archive} has no member {member!r}; it has: {there}; correct the source's `member`")
    if names.count(member) > 1:
        raise ValueError(f"{archive} has {names.count(member)} members {member!r}; pack it again with one")
    refuse_concatenated(files, archive)
    return files.getinfo(member)


def refuse_concatenated(files: zipfile.ZipFile, archive: Path) -> None:
    """Raise ValueError for an archive that follows another one, which would be skipped.

    A program may come before it: such an archive unpacks itself.
    """
    first = min(entry.header_offset for entry in files.infolist())
    with archive.open("rb") as stream:
        if first > 0 and stream.read(len(LOCAL_HEADER)) == LOCAL_HEADER:
            raise ValueError(f"{archive} is two concatenated archives, of which readers see the last; separate them")


def _is_extracted(target: Path, archive: Path, entry: zipfile.ZipInfo) -> bool:
    if not target.exists():
        return False
    found = target.stat()
    return found.st_size == entry.file_size and found.st_mtime_ns >= archive.stat().st_mtime_ns


def _check_size(entry: zipfile.ZipInfo, archive: Path, folder: Path) -> None:
    # zipfile itself stops at file_size, so a wrong size ends in an error and not in a full disk.
    if entry.file_size > MAX_EXPANSION * max(entry.compress_size, BLOCK):
        raise ValueError(
            f"{archive} unpacks {entry.filename!r} from {entry.compress_size:,} to {entry.file_size:,} bytes: a"
            " decompression bomb; it is not to be trusted"
        )
    free = shutil.disk_usage(folder).free
    if entry.file_size > free:
        raise ValueError(f"{archive} unpacks to {entry.file_size:,} bytes, but {folder} has room for {free:,}")


def _extract(files: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        with explain_disk_full(target), files.open(entry) as packed, partial.open("wb") as plain:
            shutil.copyfileobj(packed, plain, BLOCK)
        if partial.stat().st_size != entry.file_size:
            raise EOFError(f"{entry.filename} has fewer bytes than it says")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
