"""Texts at a URL, also within zip archives. Files are downloaded once, resumed, and checked by their SHA-256.

Until a file NAME is complete, NAME.partial has the bytes so far, and NAME.partial.etag the server's name for this
version of the file, so that one file never has bytes of two versions. NAME.lock stays. A member of an archive is
extracted safely: its name chooses no path, and it may not be larger than it says.
"""

import errno
import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urlsplit, urlunsplit

import requests
import urllib3
from filelock import FileLock
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from mdpipe.data.artifacts.files import check_disk_space, explain_disk_full, hash_file
from mdpipe.data.sources.files import BROKEN_ZIP, BUFFER_BYTES, SourceFile, refuse_bomb, refuse_concatenated
from mdpipe.data.sources.text import text_shards
from mdpipe.data.sources.writer import SourceShard
from mdpipe.messages import printable, reason, without_secrets
from mdpipe.params.sources import UrlSource
from mdpipe.progress import Progress

CHUNK = 2**20
"""Bytes that are written, hashed and reported at a time: a killed download loses at most these."""
ATTEMPTS = 6
"""Number of attempts; with the waits between them they take a minute, in which most servers are back."""
FIRST_WAIT = 2.0
"""Seconds before the second attempt, doubled for every further one; up to as many are added at random."""
LONGEST_WAIT = 30.0
"""Seconds that no wait exceeds."""
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as lost."""
URL_DIGITS = 12
"""Hex digits of the URL's hash in a file's name: 48 bits distinguish the URLs of any list of sources."""

OFFLINE = ("MDPIPE_OFFLINE", "HF_HUB_OFFLINE")
MIRROR = "MDPIPE_MIRROR"

TRANSIENT = (
    requests.ConnectionError,
    requests.Timeout,
    requests.HTTPError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.SSLError,
    urllib3.exceptions.TimeoutError,
)
"""Errors after which another attempt may succeed. `requests.HTTPError` is raised only here, for temporary statuses."""
MALFORMED = (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError)
"""Errors that stay: redirections that never end or leave the web, malformed addresses."""
MAX_DIGITS = 18
"""Digits of a length that a server states, at most."""
CONTENT_RANGE = re.compile(rf"bytes (?P<first>\d{{1,{MAX_DIGITS}}})-\d+/(?P<total>\d{{1,{MAX_DIGITS}}})")
LENGTH = re.compile(rf"\d{{1,{MAX_DIGITS}}}")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Report = Callable[[int, int | None], None]


def open_url(source: UrlSource, downloads: Path) -> list[SourceShard]:
    """Download the file, unless it is there already, and return shards of its text.

    Raises:
        ValueError: It cannot be downloaded, is not what it should be, or the archive has no such member.
    """
    with Progress(f"fetching {without_secrets(source.url)}", None) as progress:

        def report(done: int, total: int | None) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        path = download(source.url, source.sha256, downloads, progress=report)
    if source.member is not None:
        path = extract_member(path, source.member, downloads)
    files = [SourceFile(path.name.partition("-")[2] or path.name, path, None)]
    return text_shards(source, files)


def download(url: str, sha256: str | None, folder: Path, *, progress: Report | None = None) -> Path:
    """Download a URL into `folder`, unless the file is there already; return its path.

    A file that is there is used without the network, once its checksum is verified. Otherwise it is downloaded under
    another name and renamed when it is complete and verified. An interrupted download is resumed if the server still
    has that version. Lost connections, timeouts, status 429 and 5xx are retried with growing waits. Processes that want
    the same file at once take turns, and the later ones find it.

    With the environment variable MDPIPE_OFFLINE or HF_HUB_OFFLINE nothing is downloaded; MDPIPE_MIRROR replaces scheme
    and host of the URL, which changes no file name; HTTPS_PROXY and HTTP_PROXY name a proxy. User and password of a
    server may be in ~/.netrc, or in the file that NETRC names. No message shows user, password or query of a URL.

    Args:
        url: An http or https address.
        sha256: The checksum in hex digits; None to verify only the length.
        folder: Created if it does not exist.
        progress: Called after every chunk with the bytes so far and in all, None if the server does not say.

    Raises:
        ValueError: The checksum is wrong; the file is missing and must not be downloaded; the server refuses it, or all
            attempts failed, or its answer is malformed; the disk is too small; the address is not http or https.
    """
    file = destination(url, folder)
    if not file.exists():
        for variable in OFFLINE:
            if os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on"):
                raise ValueError(
                    f"{variable} forbids downloads; save {without_secrets(url)} as {file.absolute()} yourself"
                )
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.exists():
                _download(url, sha256, file, progress)
                return file
    if sha256 is not None and (found := hash_file(file)) != sha256.lower():
        raise ValueError(
            f"{file} has SHA-256 {found} where {sha256.lower()} is expected; delete it, or correct sources.*.sha256"
        )
    return file


def destination(url: str, folder: Path) -> Path:
    """Return the file of a download: the last part of the URL after its hash, so that two URLs never share a file."""
    digits = hashlib.sha256(url.encode()).hexdigest()[:URL_DIGITS]
    return folder / f"{digits}-{_split(url).path.rpartition('/')[2]}"


def _download(url: str, sha256: str | None, file: Path, progress: Report | None) -> None:
    address, partial = _address(url), Path(f"{file}.partial")
    attempts = Retrying(
        retry=retry_if_exception_type(TRANSIENT),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT - FIRST_WAIT) + wait_random(0, FIRST_WAIT),
        reraise=True,
    )
    try:
        with explain_disk_full(partial):
            attempts(_attempt, address, partial, progress)
    except TRANSIENT as error:
        raise ValueError(
            f"{without_secrets(address)} was not downloaded in {ATTEMPTS} attempts ({reason(error)}); run again (it"
            f" goes on where it stopped), or save the file as {file.absolute()} yourself"
        ) from None
    except MALFORMED as error:
        raise ValueError(
            f"{without_secrets(address)} cannot be downloaded ({reason(error)}); correct the source's URL, or save the"
            f" file as {file.absolute()} yourself"
        ) from None
    if sha256 is not None and (found := hash_file(partial)) != sha256.lower():
        _forget(partial)
        raise ValueError(
            f"{without_secrets(address)} has SHA-256 {found} where {sha256.lower()} is expected; what was downloaded is"
            " deleted, so run again, or correct sources.*.sha256"
        )
    partial.replace(file)
    _forget(partial)


def _attempt(address: str, partial: Path, progress: Report | None) -> None:
    """Request the bytes that `partial` lacks once, and append those that arrive."""
    # Bytes compressed on the way would have another length and other offsets.
    headers = {"Accept-Encoding": "identity"}
    tag = Path(f"{partial}.etag")
    done = partial.stat().st_size if partial.exists() and tag.exists() else 0
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text("utf-8")}
    try:
        response = requests.get(address, headers=headers, stream=True, timeout=TIMEOUT)
    except ValueError as error:  # from a redirection to a malformed address
        raise requests.exceptions.InvalidURL(str(error)) from None
    with response:
        done, total = _begin(response, address, partial, done)
        # iter_content would decompress a .gz that the server declares to be compressed text.
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            _append(partial, chunk, done, address)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        partial.touch()  # an empty file has no chunk
    if total is not None and done < total:
        raise requests.ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _append(partial: Path, chunk: bytes, done: int, address: str) -> None:
    """Append bytes to the partial file; if the disk is full, remove the file to make room for others."""
    try:
        if shutil.disk_usage(partial.parent).free < len(chunk):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with partial.open("ab") as file:
            file.write(chunk)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _forget(partial)
        raise ValueError(
            f"{without_secrets(address)} does not fit the disk of {partial.parent}, which is full after {done:,} bytes;"
            " what was downloaded is deleted: make room, or correct the source's URL"
        ) from None


def _begin(response: requests.Response, address: str, partial: Path, done: int) -> tuple[int, int | None]:
    """Prepare `partial` for the response; return how many bytes it has and how many the whole file has."""
    status, version, tag = response.status_code, _version(response), Path(f"{partial}.etag")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise requests.HTTPError(f"status {status}")
    total: int | None
    if done and status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        follows = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        # The version may be missing if If-Range named it; another one comes from servers that ignore If-Range.
        if not follows or int(follows["first"]) != done or version not in (None, tag.read_text("utf-8")):
            _forget(partial)
            raise requests.HTTPError(f"status {status}, which does not go on after {done:,} bytes")
        total = int(follows["total"])
    elif status == HTTPStatus.OK:
        _forget(partial)
        length = response.headers.get("Content-Length")
        if length is not None and not LENGTH.fullmatch(length.strip()):
            raise ValueError(
                f"the server of {without_secrets(address)} states the Content-Length {length[:40]!r}, which is not a"
                " number of bytes; correct the server or the source's URL"
            )
        done, total = 0, None if length is None else int(length)
    else:
        raise ValueError(
            f"{without_secrets(address)} is refused with status {status}; correct the URL or the access to it"
        )
    if total is not None:
        check_disk_space(partial.parent, total - done, without_secrets(address))
    if not done and version is not None:
        tag.write_text(version, "utf-8")
    return done, total


def _version(response: requests.Response) -> str | None:
    """Return the version for If-Range: a strong ETag, else the date; a weak ETag does not promise equal bytes."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _forget(partial: Path) -> None:
    # In this order, since a version without bytes is harmless.
    partial.unlink(missing_ok=True)
    Path(f"{partial}.etag").unlink(missing_ok=True)


def _address(url: str) -> str:
    """Return where a URL is downloaded from: itself, or the same path of the mirror."""
    parts, mirror = _split(url), os.environ.get(MIRROR, "")
    address = mirror.rstrip("/") + urlunsplit(("", "", parts.path, parts.query, "")) if mirror else url
    if _split(address).scheme not in ("http", "https"):
        raise ValueError(
            f"{without_secrets(address)} is not an http or https address; correct the source's URL or {MIRROR}"
        )
    return address


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise ValueError(
            f"{without_secrets(address)} is not a URL ({reason(error)}); correct the source's URL or {MIRROR}"
        ) from None


def extract_member(archive: Path, member: str, folder: Path) -> Path:
    """Extract a member of a zip archive into the folder, unless that was done since the archive came; return the file.

    It is named after the archive and the member, with slashes spelled as in a URL: two members never share a file.
    Processes that want the same member at once take turns, and the later ones find it.

    Raises:
        ValueError: No zip archive, no such member, one whose name is outside of the archive, a decompression bomb, a
            broken member, or a disk that is too small.
    """
    if _is_outside(member) or ":" in member or not PurePosixPath(member.replace("\\", "/")).parts:
        raise ValueError(f"member = {member!r} is outside of {archive}; name a file that is within it")
    escaped = re.sub(r"[%/\\]", lambda sign: f"%{ord(sign[0]):02X}", member)
    target = folder / f"{archive.name}.{escaped}"
    try:
        with zipfile.ZipFile(archive) as files, FileLock(target.with_name(f".{target.name}.lock")):
            entry = _find(files, archive, member)
            found = target.stat() if target.exists() else None
            is_newer = found is not None and found.st_mtime_ns >= archive.stat().st_mtime_ns
            if found is None or not is_newer or found.st_size != entry.file_size:
                # zipfile itself stops at file_size, so a wrong size ends in an error and not in a full disk.
                refuse_bomb(entry, f"{archive} unpacks {entry.filename!r}", "do not trust it")
                check_disk_space(folder, entry.file_size, f"unpacking {entry.filename!r} from {archive}")
                _extract(files, entry, target)
    except BROKEN_ZIP as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # a full disk is not the archive's fault
        raise ValueError(
            f"{archive} is truncated or no zip archive ({reason(error)}); delete it and run again"
        ) from None
    return target


def _is_outside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def _find(files: zipfile.ZipFile, archive: Path, member: str) -> zipfile.ZipInfo:
    names = files.namelist()
    unsafe = next(filter(_is_outside, names), None)
    if unsafe is not None:
        raise ValueError(f"{archive} has a member {unsafe!r} that is outside of it; do not trust it")
    if member not in names or member.endswith("/"):
        there = ", ".join(sorted(printable(name) for name in names if not name.endswith("/"))[:10])
        raise ValueError(f"{archive} has no member {member!r}; it has: {there}; correct the source's `member`")
    if names.count(member) > 1:
        raise ValueError(f"{archive} has {names.count(member)} members {member!r}; pack it again with one")
    refuse_concatenated(files, archive)
    return files.getinfo(member)


def _extract(files: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        with explain_disk_full(target), files.open(entry) as packed, partial.open("wb") as plain:
            shutil.copyfileobj(packed, plain, BUFFER_BYTES)
        if partial.stat().st_size != entry.file_size:
            raise EOFError(f"{entry.filename} has fewer bytes than it says")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
