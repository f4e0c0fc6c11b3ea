"""A real HTTP server of one file that misbehaves as a test wants."""

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from mdpipe.data.sources import download as downloading

BODY = np.random.default_rng(0).bytes(200_000)
SUM = hashlib.sha256(BODY).hexdigest()
CHUNK = 4096
HALF = 100_000
WHOLE = (None, None)
"""The Range and If-Range of a request for the whole file."""


@dataclass
class Site:
    """The state of the server, and the requests that it received."""

    port: int = 0
    body: bytes = BODY
    version: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    more: dict[str, str] = field(default_factory=dict)
    status: list[int] = field(default_factory=list)
    """Answers to the next requests instead of the file."""
    breaks: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    stalls: bool = False
    """Keep the connection open at a break until released."""
    released: Event = field(default_factory=Event)
    ranges: bool = True
    asks_version: bool = True
    """Whether If-Range is obeyed."""
    shift: int = 0
    """Distance of the first byte of a range from the requested one."""
    longest: int = len(BODY)
    """Bytes of a range that are answered at most."""
    extra_length: int = 0
    """Bytes that are announced and do not exist."""
    length: bool = True
    pause: float = 0.0
    """Seconds before every answer."""
    requests: list[tuple[str | None, str | None]] = field(default_factory=list)
    location: str | None = None
    """Where the next requests are sent on to."""
    needs_password: bool = False
    """True if user "me" and password "s3cret" are required."""
    paths: list[str] = field(default_factory=list)
    encodings: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"http://127.0.0.1:{self.port}/dc/text8.zip"


class Handler(BaseHTTPRequestHandler):
    """Answers as its site says."""

    site: Site

    def do_GET(self) -> None:
        """The file, a part of it, or what comes instead."""
        site = self.site
        site.requests.append((self.headers["Range"], self.headers["If-Range"]))
        site.paths.append(self.path)
        site.encodings.append(self.headers["Accept-Encoding"])
        time.sleep(site.pause)
        if site.location is not None:
            self.answer(302, {"Location": site.location, "Content-Length": "0"}, b"")
            return
        if site.needs_password and self.headers["Authorization"] != "Basic bWU6czNjcmV0":
            self.answer(401, {"Content-Length": "0"}, b"")
            return
        if self.path.startswith("/moved"):
            self.answer(302, {"Location": site.url, "Content-Length": "0"}, b"")
            return
        if site.status:
            self.answer(site.status.pop(0), {"Content-Length": "4"}, b"oops")
            return
        first = self.first_byte()
        if first is None:
            self.answer(200, self.described(len(site.body)), site.body)
        elif first >= len(site.body):
            self.answer(416, {"Content-Range": f"bytes */{len(site.body)}", "Content-Length": "0"}, b"")
        else:
            first += site.shift
            rest = site.body[first : first + site.longest]
            where = f"bytes {first}-{first + len(rest) - 1}/{len(site.body)}"
            self.answer(206, {"Content-Range": where} | self.described(len(rest)), rest)

    def first_byte(self) -> int | None:
        """Return where the requested range begins; None for the whole file."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        current = self.headers["If-Range"] in self.site.version.values() or not self.site.asks_version
        return int(wanted[1]) if wanted and self.site.ranges and current else None

    def described(self, length: int) -> dict[str, str]:
        """Return the headers of an answer of this many bytes."""
        announced = {"Content-Length": str(length + self.site.extra_length)} if self.site.length else {}
        return announced | self.site.version | self.site.more

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send all this, or break off."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        end = self.site.breaks.pop(0) if status < 300 and self.site.breaks else len(body)
        self.wfile.write(body[:end])
        if self.site.stalls and end < len(body):
            self.wfile.flush()
            self.site.released.wait(10)

    def log_message(self, *message: object) -> None:
        """Say nothing."""


@contextmanager
def serve() -> Iterator[Site]:
    """A site with a server that runs meanwhile."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"site": site}))
    site.port = server.server_port
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, short waits, no settings of the environment that runs the tests."""
    monkeypatch.setattr(downloading, "CHUNK", CHUNK)
    monkeypatch.setattr(downloading, "FIRST_WAIT", 0.001)
    for variable in (*downloading.OFFLINE, downloading.MIRROR):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def name(url: str) -> str:
    """Of the file that is fetched from there."""
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-text8.zip"


def partials(folder: Path) -> list[Path]:
    """What unfinished downloads left."""
    return sorted(folder.glob("*.partial*"))


def start(url: str, folder: Path) -> subprocess.Popen[bytes]:
    """Another process that fetches the file."""
    code = (
        "import sys, pathlib; from mdpipe.data.sources import download as module; "
        f"module.CHUNK, module.FIRST_WAIT = {CHUNK}, 0.001; "
        f"module.download({url!r}, {SUM!r}, pathlib.Path(sys.argv[1]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, os.fspath(folder)])
