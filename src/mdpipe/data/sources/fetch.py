"""Files from the web: downloaded once, continued where a download stopped, and checked by their SHA-256.

Until a file NAME is complete, there are beside its place NAME.partial, the bytes so far, and NAME.partial.etag, by
which the server tells versions of the file apart, so that one file never has bytes of two. NAME.lock stays.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

import requests
import urllib3
from filelock import FileLock
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from mdpipe.data.artifacts.room import needs_room
from mdpipe.messages import reason, without_secrets

CHUNK = 2**20
"""Bytes that are written, hashed and reported at a time, and so what a killed download loses at most."""
ATTEMPTS = 6
"""With the waits between them they take a minute, in which most servers are back."""
FIRST_WAIT = 2.0
"""Seconds before the second attempt, doubled for every further one; up to as many come on top by chance."""
LONGEST_WAIT = 30.0
"""Seconds that no wait exceeds."""
SILENCE = 60.0
"""Seconds without a byte after which a connection counts as lost."""
NAME_DIGITS = 12
"""Hex digits of the URL's hash in a file's name: 48 bits tell any list of sources apart."""

OFFLINE = ("MDPIPE_OFFLINE", "HF_HUB_OFFLINE")
YES = {"1", "true", "yes", "on"}
MIRROR = "MDPIPE_MIRROR"

TRANSIENT = (
    requests.ConnectionError,
    requests.Timeout,
    requests.HTTPError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.SSLError,
    urllib3.exceptions.TimeoutError,
)
"""What another attempt may cure. `HTTPError` of requests is raised here alone, for statuses that pass."""
MALFORMED = (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError)
"""What no attempt cures: redirections that never end or leave the web, addresses that are none."""
MAX_DIGITS = 18
"""Of a length that a server states: a file of more bytes is not meant."""
GOES_ON = re.compile(rf"bytes (?P<first>\d{{1,{MAX_DIGITS}}})-\d+/(?P<total>\d{{1,{MAX_DIGITS}}})")
LENGTH = re.compile(rf"\d{{1,{MAX_DIGITS}}}")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Progress = Callable[[int, int | None], None]


def fetch(url: str, sha256: str | None, folder: Path, *, progress: Progress | None = None) -> Path:
    """The file of a URL, downloaded into `folder` unless it is there already; give its path.

    Its name is the last part of the URL's path after the first digits of the URL's own SHA-256, so that two URLs never
    share a file. A file that is there is used without the network, once its checksum is verified. Else it is
    downloaded beside its place and renamed into it when it is complete and verified; a download that was cut off or
    killed goes on after the bytes it has if the server still has that version, and starts over if not. Lost
    connections, silence, status 429 and 5xx are tried again, with growing waits. Processes that want the same file at
    once take turns, and the later ones find it.

    Environment variables: with MDPIPE_OFFLINE or HF_HUB_OFFLINE nothing is downloaded; MDPIPE_MIRROR takes the place
    of the URL's scheme and host, which changes no file's name; HTTPS_PROXY and its kin name a proxy. User and password
    of a server may be in ~/.netrc, or in the file that NETRC names. No message has those of a URL, or its query.

    Args:
        url: An address of http or https.
        sha256: The checksum in hex digits; with None, nothing is verified but the length.
        folder: Made if it is not there.
        progress: Called after every chunk with the bytes that are there and those of the whole file, None if the
            server does not tell.

    Raises:
        ValueError: the file, present or downloaded, has another checksum; it is not there and must not be downloaded;
            the server refuses it, or all attempts failed, or its answer is malformed; it does not fit the disk, which
            gets its room back; the address is not http or https.
    """
    file = destination(url, folder)
    if not file.exists():
        _refuse_offline(url, file)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.exists():
                _download(url, sha256, file, progress)
                return file
    if sha256 is not None and (found := _sha256(file)) != sha256.lower():
        raise ValueError(
            f"{file} has SHA-256 {found} where {sha256.lower()} is expected; delete it, or correct sources.*.sha256"
        )
    return file


def destination(url: str, folder: Path) -> Path:
    """Return the file that `fetch` keeps a download in."""
    digits = hashlib.sha256(url.encode()).hexdigest()[:NAME_DIGITS]
    return folder / f"{digits}-{_split(url).path.rpartition('/')[2]}"


def _download(url: str, sha256: str | None, file: Path, progress: Progress | None) -> None:
    address, partial = _address(url), Path(f"{file}.partial")
    attempts = Retrying(
        retry=retry_if_exception_type(TRANSIENT),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT - FIRST_WAIT) + wait_random(0, FIRST_WAIT),
        reraise=True,
    )
    try:
        with needs_room(partial):
            attempts(_attempt, address, partial, progress)
    except TRANSIENT as error:
        raise ValueError(
            f"{without_secrets(address)} was not downloaded in {ATTEMPTS} attempts ({reason(error)}); run again (it"
            f" goes on where it stopped), or put the file at {file.absolute()} by hand"
        ) from None
    except MALFORMED as error:
        raise ValueError(
            f"{without_secrets(address)} cannot be downloaded ({reason(error)}); correct the source's URL, or put the"
            f" file at {file.absolute()} by hand"
        ) from None
    if sha256 is not None and (found := _sha256(partial)) != sha256.lower():
        _forget(partial)
        raise ValueError(
            f"{without_secrets(address)} has SHA-256 {found} where {sha256.lower()} is expected; what was downloaded is"
            " deleted, so run again, or correct sources.*.sha256"
        )
    partial.replace(file)
    _forget(partial)


def _attempt(address: str, partial: Path, progress: Progress | None) -> None:
    """Ask once for the bytes that `partial` lacks and add those that come."""
    # The bytes as they are stored: compressed on the way, they would have another length and other offsets.
    headers = {"Accept-Encoding": "identity"}
    tag = Path(f"{partial}.etag")
    done = partial.stat().st_size if partial.exists() and tag.exists() else 0
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text("utf-8")}
    with _get(address, headers) as response:
        done, total = _begin(response, address, partial, done)
        # Not iter_content, which would unpack a .gz that the server declares to be packed text.
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            _append(partial, chunk, done, address)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        partial.touch()  # of an empty file no chunk comes
    if total is not None and done < total:
        raise requests.ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _get(address: str, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(address, headers=headers, stream=True, timeout=SILENCE)
    except ValueError as error:  # of a redirection, which the library splits without looking
        raise requests.exceptions.InvalidURL(str(error)) from None


def _append(partial: Path, chunk: bytes, done: int, address: str) -> None:
    """Add bytes to the partial file; if the disk has no room for them, remove it, so that others have the room."""
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
    """Make `partial` ready for the response's bytes; give how many it has and how many the whole file has."""
    status, version, tag = response.status_code, _version(response), Path(f"{partial}.etag")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise requests.HTTPError(f"status {status}")
    total: int | None
    if done and status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        follows = GOES_ON.fullmatch(response.headers.get("Content-Range", ""))
        # The version may be left out where If-Range named it; another one comes from servers that ignore If-Range.
        if not follows or int(follows["first"]) != done or version not in (None, tag.read_text("utf-8")):
            _forget(partial)
            raise requests.HTTPError(f"status {status}, which does not go on after {done:,} bytes")
        total = int(follows["total"])
    elif status == HTTPStatus.OK:
        _forget(partial)
        done, total = 0, _length(response, address)
    else:
        raise ValueError(
            f"{without_secrets(address)} is refused with status {status}; correct the URL or the access to it"
        )
    free = shutil.disk_usage(partial.parent).free
    if total is not None and total - done > free:
        needed = f"{without_secrets(address)} needs {total - done:,} bytes"
        raise ValueError(f"{needed}, but the disk of {partial.parent} has {free:,} free")
    if not done and version is not None:
        tag.write_text(version, "utf-8")
    return done, total


def _length(response: requests.Response, address: str) -> int | None:
    """Return the length that the server states, or None where it states none."""
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not LENGTH.fullmatch(length.strip()):
        raise ValueError(
            f"the server of {without_secrets(address)} states the Content-Length {length[:40]!r}, which is no number of"
            " bytes; correct the server or the source's URL"
        )
    return int(length)


def _version(response: requests.Response) -> str | None:
    """What If-Range may ask for: a strong ETag, else the date; a weak ETag promises no equal bytes."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _forget(partial: Path) -> None:
    # In this order: a version without bytes is harmless.
    partial.unlink(missing_ok=True)
    Path(f"{partial}.etag").unlink(missing_ok=True)


def _refuse_offline(url: str, file: Path) -> None:
    for variable in OFFLINE:
        if os.environ.get(variable, "").strip().lower() in YES:
            raise ValueError(f"{variable} forbids downloads; put {without_secrets(url)} at {file.absolute()} by hand")


def _address(url: str) -> str:
    """Where a URL is downloaded from: itself, or the same path of the mirror."""
    parts, mirror = _split(url), os.environ.get(MIRROR, "")
    address = mirror.rstrip("/") + urlunsplit(("", "", parts.path, parts.query, "")) if mirror else url
    if _split(address).scheme not in ("http", "https"):
        raise ValueError(
            f"{without_secrets(address)} is no address of http or https; correct the source's URL or {MIRROR}"
        )
    return address


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise ValueError(
            f"{without_secrets(address)} is no URL ({reason(error)}); correct the source's URL or {MIRROR}"
        ) from None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
