"""Files from the web, of a real server that misbehaves on demand."""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import numpy as np
import pytest

from mdpipe.data.sources import fetch as fetching
from mdpipe.data.sources.fetch import ATTEMPTS, fetch

BODY = np.random.default_rng(0).bytes(200_000)
SUM = hashlib.sha256(BODY).hexdigest()
OTHER_SUM = hashlib.sha256(b"other").hexdigest()
CHUNK = 4096
HALF = 100_000
WHOLE = (None, None)
"""The Range and If-Range of a request for the whole file."""


@dataclass
class Site:
    """What the server has and does, and what it was asked."""

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
    """How far from the first byte asked a range begins."""
    longest: int = len(BODY)
    """Bytes of a range that are answered at most."""
    lie: int = 0
    """Bytes that are announced and do not exist."""
    length: bool = True
    pause: float = 0.0
    """Seconds before every answer."""
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    encodings: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dc/text8.zip"


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self):
        site = self.site
        site.asked.append((self.headers["Range"], self.headers["If-Range"]))
        site.paths.append(self.path)
        site.encodings.append(self.headers["Accept-Encoding"])
        time.sleep(site.pause)
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

    def first_byte(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        current = self.headers["If-Range"] in self.site.version.values() or not self.site.asks_version
        return int(asked[1]) if asked and self.site.ranges and current else None

    def described(self, length):
        announced = {"Content-Length": str(length + self.site.lie)} if self.site.length else {}
        return self.site.version | self.site.more | announced

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        end = self.site.breaks.pop(0) if status < 300 and self.site.breaks else len(body)
        self.wfile.write(body[:end])
        if self.site.stalls and end < len(body):
            self.wfile.flush()
            self.site.released.wait(10)

    def log_message(self, *message):
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small chunks, short waits, no settings of the environment that runs the tests."""
    monkeypatch.setattr(fetching, "CHUNK", CHUNK)
    monkeypatch.setattr(fetching, "FIRST_WAIT", 0.001)
    for variable in (*fetching.OFFLINE, fetching.MIRROR):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site():
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


def name(url):
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-text8.zip"


def partials(folder):
    return sorted(folder.glob("*.partial*"))


def test_a_file_is_downloaded_once_and_has_the_bytes_of_the_server(site, tmp_path):
    folder = tmp_path / "new" / "folder"
    file = fetch(site.url, SUM.upper(), folder)
    assert file == folder / name(site.url)
    assert file.read_bytes() == BODY
    assert fetch(site.url, SUM, folder) == file
    assert site.asked == [WHOLE]
    assert not partials(folder)


def test_urls_that_end_alike_are_different_files(site, tmp_path):
    files = {fetch(site.url + end, None, tmp_path) for end in ("", "?second", "/../text8.zip")}
    assert len(files) == 3
    assert all(file.name.endswith("-text8.zip") for file in files)


def test_no_checksum_is_needed_and_an_empty_file_is_a_file(site, tmp_path):
    site.body = b""
    assert fetch(site.url, None, tmp_path).read_bytes() == b""


def test_bytes_stay_packed_as_the_server_stores_them(site, tmp_path):
    site.body, site.more = gzip.compress(BODY), {"Content-Encoding": "gzip"}
    assert fetch(site.url, None, tmp_path).read_bytes() == site.body
    assert site.encodings == ["identity"]


@pytest.mark.parametrize("version", [{"ETag": '"one"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_a_broken_connection_is_resumed_by_asking_for_the_rest_alone(site, tmp_path, version):
    site.version, site.breaks = version, [HALF, HALF // 2]
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    tag = next(iter(version.values()))
    assert site.asked == [WHOLE, (f"bytes={HALF}-", tag), (f"bytes={HALF + HALF // 2}-", tag)]


def test_a_redirection_is_followed_and_changes_no_name(site, tmp_path):
    site.breaks = [HALF]
    url = site.url.replace("/dc/", "/moved/")
    assert fetch(url, SUM, tmp_path) == tmp_path / name(url)
    assert site.asked == [WHOLE, WHOLE, *[(f"bytes={HALF}-", '"one"')] * 2]


def test_the_date_is_asked_for_where_the_etag_is_weak(site, tmp_path):
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    site.version, site.breaks = {"ETag": 'W/"one"', "Last-Modified": date}, [HALF]
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE, (f"bytes={HALF}-", date)]


@pytest.mark.parametrize("version", [{}, {"ETag": 'W/"one"'}])
def test_a_file_whose_version_cannot_be_told_is_started_over(site, tmp_path, version):
    site.version, site.breaks = version, [HALF]
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE, WHOLE]


def test_a_server_that_ignores_ranges_starts_over(site, tmp_path):
    site.ranges, site.breaks = False, [HALF]
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE, (f"bytes={HALF}-", '"one"')]


@pytest.mark.parametrize("asks_version", [True, False])
def test_bytes_of_two_versions_are_never_mixed(site, tmp_path, monkeypatch, asks_version):
    """Without a checksum, which would find out; some servers answer a range whatever If-Range says."""
    site.asks_version, site.breaks = asks_version, [HALF]
    with monkeypatch.context() as once, pytest.raises(ValueError, match="run again"):
        once.setattr(fetching, "ATTEMPTS", 1)
        fetch(site.url, None, tmp_path)
    site.body, site.version = BODY[::-1], {"ETag": '"two"'}
    assert fetch(site.url, None, tmp_path).read_bytes() == BODY[::-1]
    assert site.asked == [WHOLE, (f"bytes={HALF}-", '"one"'), WHOLE][: 2 if asks_version else 3]


def test_a_range_that_begins_elsewhere_is_not_used(site, tmp_path):
    site.shift, site.breaks = -10, [HALF]
    assert fetch(site.url, None, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE, (f"bytes={HALF}-", '"one"'), WHOLE]


def test_a_range_that_ends_early_is_continued(site, tmp_path):
    site.breaks, site.longest = [HALF], HALF - 10
    assert fetch(site.url, None, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE, (f"bytes={HALF}-", '"one"'), (f"bytes={len(BODY) - 10}-", '"one"')]


def test_a_range_that_is_refused_starts_over(site, tmp_path):
    partial = tmp_path / f"{name(site.url)}.partial"
    partial.write_bytes(BODY + b"more")
    partial.with_name(f"{partial.name}.etag").write_text('"one"')
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.asked == [(f"bytes={len(BODY) + 4}-", '"one"'), WHOLE]


def test_a_length_that_is_never_reached_is_no_success(site, tmp_path):
    site.lie = 10
    with pytest.raises(ValueError, match=rf"not downloaded in {ATTEMPTS} attempts"):
        fetch(site.url, None, tmp_path)
    assert len(site.asked) == ATTEMPTS
    assert not (tmp_path / name(site.url)).exists()


def test_what_a_killed_process_got_is_not_asked_for_again(site, tmp_path):
    site.stalls, site.breaks = True, [HALF]
    process = start(site.url, tmp_path)
    partial = tmp_path / f"{name(site.url)}.partial"
    while not partial.exists() or partial.stat().st_size < HALF // 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = partial.stat().st_size
    assert BODY.startswith(partial.read_bytes())
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE, (f"bytes={left}-", '"one"')]
    assert not partials(tmp_path)


def start(url, folder):
    """Another process that fetches the file."""
    code = (
        "import sys, pathlib; from mdpipe.data.sources import fetch; "
        f"fetch.CHUNK, fetch.FIRST_WAIT = {CHUNK}, 0.001; fetch.fetch({url!r}, {SUM!r}, pathlib.Path(sys.argv[1]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, os.fspath(folder)])


def test_a_download_with_another_checksum_is_deleted(site, tmp_path):
    with pytest.raises(ValueError, match=f"text8.zip has SHA-256 {SUM} where {OTHER_SUM} is expected; .* deleted"):
        fetch(site.url, OTHER_SUM, tmp_path)
    assert site.asked == [WHOLE]
    assert not partials(tmp_path)
    assert not (tmp_path / name(site.url)).exists()


def test_a_present_file_with_another_checksum_is_refused_and_kept(site, tmp_path):
    file = tmp_path / name(site.url)
    file.write_bytes(b"other")
    message = f"{file} has SHA-256 {OTHER_SUM} where {SUM} is expected; delete it, or correct sources.*.sha256"
    with pytest.raises(ValueError, match=re.escape(message)):
        fetch(site.url, SUM, tmp_path)
    assert file.read_bytes() == b"other"
    assert not site.asked


@pytest.mark.parametrize("status", [403, 404, 410, 204])
def test_a_refusal_is_final_after_one_request(site, tmp_path, status):
    site.status = [status] * 2
    with pytest.raises(ValueError, match=rf"{re.escape(site.url)} is refused with status {status}"):
        fetch(site.url, SUM, tmp_path)
    assert len(site.asked) == 1


def test_a_busy_server_is_asked_again(site, tmp_path):
    site.status = [503, 429, 500]
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE] * 4


def test_after_the_last_attempt_the_cure_is_named(site, tmp_path):
    site.status = [503] * ATTEMPTS
    file = re.escape(str(tmp_path / name(site.url)))
    with pytest.raises(ValueError, match=rf"status 503.*; run again .*, or put the file at {file} by hand"):
        fetch(site.url, SUM, tmp_path)
    assert len(site.asked) == ATTEMPTS
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"http://127.0.0.1:1/a was not downloaded in {ATTEMPTS} attempts"):
        fetch("http://127.0.0.1:1/a", None, tmp_path)


def test_a_silent_server_is_asked_again(site, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "SILENCE", 0.1)
    site.stalls, site.breaks = True, [CHUNK * 10]
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.asked == [WHOLE, (f"bytes={CHUNK * 10}-", '"one"')]


def test_waits_grow_to_a_bound(site, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(fetching, "FIRST_WAIT", 2.0)
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    site.status = [503] * ATTEMPTS
    with pytest.raises(ValueError, match="status 503"):
        fetch(site.url, None, tmp_path)
    waits = [wait for wait in waits if wait]  # the server sleeps too, but for no time
    assert len(waits) == ATTEMPTS - 1
    assert all(2**n < wait <= 2**n + 2 for n, wait in enumerate(waits[:-1], start=1))
    assert fetching.LONGEST_WAIT - 2 <= waits[-1] <= fetching.LONGEST_WAIT


@pytest.mark.parametrize("variable", fetching.OFFLINE)
@pytest.mark.parametrize("value", ["1", "true", "YES", "On"])
def test_offline_the_missing_file_and_its_place_are_named(site, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "raw" / name(site.url)
    message = f"{variable} forbids downloads; put {site.url} at {file} by hand"
    with pytest.raises(ValueError, match=re.escape(message)):
        fetch(site.url, SUM, (tmp_path / "raw").relative_to(tmp_path))
    file.parent.mkdir()
    file.write_bytes(BODY)
    assert fetch(site.url, SUM, tmp_path / "raw") == file
    assert not site.asked


def test_offline_is_off_unless_it_is_switched_on(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("MDPIPE_OFFLINE", "")
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("end", ["", "/"])
def test_a_mirror_takes_the_place_of_the_host_and_changes_no_name(site, tmp_path, monkeypatch, end):
    monkeypatch.setenv("MDPIPE_MIRROR", f"http://127.0.0.1:{site.port}/files{end}")
    url = "https://nowhere.invalid/dc/text8.zip"
    assert fetch(url, SUM, tmp_path) == tmp_path / name(url)
    assert site.paths == ["/files/dc/text8.zip"]


@pytest.mark.parametrize(("url", "mirror"), [("ftp://a/b", ""), ("/a/b", ""), ("https://a/b", "example.org/files")])
def test_an_address_that_is_not_of_the_web_is_refused(tmp_path, monkeypatch, url, mirror):
    monkeypatch.setenv("MDPIPE_MIRROR", mirror)
    with pytest.raises(ValueError, match="is no address of http or https; correct the source's URL or MDPIPE_MIRROR"):
        fetch(url, None, tmp_path)


def test_a_file_that_does_not_fit_the_disk_is_not_begun(site, tmp_path, monkeypatch):
    free(monkeypatch, len(BODY) - 1)
    with pytest.raises(ValueError, match=f"needs 200,000 bytes, but the disk of {tmp_path} has 199,999 free"):
        fetch(site.url, SUM, tmp_path)
    assert not partials(tmp_path)
    assert len(site.asked) == 1


def test_a_resumed_file_needs_room_for_its_rest_alone(site, tmp_path, monkeypatch):
    partial = tmp_path / f"{name(site.url)}.partial"
    partial.write_bytes(BODY[:HALF])
    partial.with_name(f"{partial.name}.etag").write_text('"one"')
    free(monkeypatch, HALF - 1)
    with pytest.raises(ValueError, match=r"needs 100,000 bytes, .* 99,999 free"):
        fetch(site.url, SUM, tmp_path)
    free(monkeypatch, HALF)
    assert fetch(site.url, SUM, tmp_path).read_bytes() == BODY


def free(monkeypatch, space):
    usage = namedtuple("usage", "total used free")(2 * space, space, space)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


@pytest.mark.parametrize("length", [True, False])
def test_progress_counts_every_chunk_up_to_the_whole(site, tmp_path, length):
    site.length = length
    seen = []
    fetch(site.url, SUM, tmp_path, progress=lambda *progress: seen.append(progress))
    total = len(BODY) if length else None
    assert seen == [(min(done, len(BODY)), total) for done in range(CHUNK, len(BODY) + CHUNK, CHUNK)]


def test_progress_goes_on_where_the_download_does(site, tmp_path):
    site.breaks = [HALF]
    seen = []
    fetch(site.url, SUM, tmp_path, progress=lambda *progress: seen.append(progress))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {len(BODY)}
    assert seen[-1] == (len(BODY), len(BODY))


def test_threads_that_want_the_same_file_download_it_once(site, tmp_path):
    site.pause = 0.1
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: fetch(site.url, SUM, tmp_path), range(4)))
    assert {file.read_bytes() for file in files} == {BODY}
    assert site.asked == [WHOLE]


def test_processes_that_want_the_same_file_download_it_once(site, tmp_path):
    """The first one stops half-way until the others had time to come."""
    site.stalls, site.breaks = True, [HALF]
    processes = [start(site.url, tmp_path) for _ in range(3)]
    while not site.asked:
        time.sleep(0.01)
    time.sleep(0.3)
    site.breaks.clear()
    site.released.set()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / name(site.url)).read_bytes() == BODY
    assert [asked for asked, _ in site.asked] == [None, f"bytes={HALF}-"]
