"""Files from the web: downloaded once, checked, and only where that is allowed and has room."""

import gzip
import hashlib
import re
import shutil
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest

from mdpipe.data.sources import download as downloading
from mdpipe.data.sources.download import download
from tests.data.sources.http_server import BODY, CHUNK, HALF, SUM, WHOLE, make_quick, name, partials, serve, start

pytestmark = pytest.mark.slow

OTHER_SUM = hashlib.sha256(b"other").hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch)


@pytest.fixture
def site():
    with serve() as site:
        yield site


def test_a_file_is_downloaded_once_with_the_servers_bytes(site, tmp_path):
    folder = tmp_path / "new" / "folder"
    file = download(site.url, SUM.upper(), folder)
    assert file == folder / name(site.url)
    assert file.read_bytes() == BODY
    assert download(site.url, SUM, folder) == file
    assert site.requests == [WHOLE]
    assert not partials(folder)


def test_urls_that_end_alike_are_different_files(site, tmp_path):
    files = {download(site.url + end, None, tmp_path) for end in ("", "?second", "/../text8.zip")}
    assert len(files) == 3
    assert all(file.name.endswith("-text8.zip") for file in files)


def test_no_checksum_is_needed_and_an_empty_file_is_a_file(site, tmp_path):
    site.body = b""
    assert download(site.url, None, tmp_path).read_bytes() == b""


def test_bytes_stay_packed_as_the_server_stores_them(site, tmp_path):
    site.body, site.more = gzip.compress(BODY), {"Content-Encoding": "gzip"}
    assert download(site.url, None, tmp_path).read_bytes() == site.body
    assert site.encodings == ["identity"]


def test_a_download_with_another_checksum_is_deleted(site, tmp_path):
    with pytest.raises(ValueError, match=f"text8.zip has SHA-256 {SUM} where {OTHER_SUM} is expected; .* deleted"):
        download(site.url, OTHER_SUM, tmp_path)
    assert site.requests == [WHOLE]
    assert not partials(tmp_path)
    assert not (tmp_path / name(site.url)).exists()


def test_a_file_with_another_checksum_is_refused_and_kept(site, tmp_path):
    file = tmp_path / name(site.url)
    file.write_bytes(b"other")
    message = f"{file} has SHA-256 {OTHER_SUM} where {SUM} is expected; delete it, or correct sources.*.sha256"
    with pytest.raises(ValueError, match=re.escape(message)):
        download(site.url, SUM, tmp_path)
    assert file.read_bytes() == b"other"
    assert not site.requests


@pytest.mark.parametrize("variable", downloading.OFFLINE)
@pytest.mark.parametrize("value", ["1", "true", "YES", "On"])
def test_offline_the_missing_file_and_its_path_are_named(site, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "raw" / name(site.url)
    message = f"{variable} forbids downloads; save {site.url} as {file} yourself"
    with pytest.raises(ValueError, match=re.escape(message)):
        download(site.url, SUM, (tmp_path / "raw").relative_to(tmp_path))
    file.parent.mkdir()
    file.write_bytes(BODY)
    assert download(site.url, SUM, tmp_path / "raw") == file
    assert not site.requests


def test_offline_is_off_unless_it_is_switched_on(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("MDPIPE_OFFLINE", "")
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("end", ["", "/"])
def test_a_mirror_replaces_the_host_and_changes_no_name(site, tmp_path, monkeypatch, end):
    monkeypatch.setenv("MDPIPE_MIRROR", f"http://127.0.0.1:{site.port}/files{end}")
    url = "https://nowhere.invalid/dc/text8.zip"
    assert download(url, SUM, tmp_path) == tmp_path / name(url)
    assert site.paths == ["/files/dc/text8.zip"]


@pytest.mark.parametrize(("url", "mirror"), [("ftp://a/b", ""), ("/a/b", ""), ("https://a/b", "example.org/files")])
def test_an_address_that_is_not_of_the_web_is_refused(tmp_path, monkeypatch, url, mirror):
    monkeypatch.setenv("MDPIPE_MIRROR", mirror)
    with pytest.raises(ValueError, match="is not an http or https address; correct the source's URL or MDPIPE_MIRROR"):
        download(url, None, tmp_path)


def test_a_file_that_does_not_fit_the_disk_is_not_begun(site, tmp_path, monkeypatch):
    free(monkeypatch, len(BODY) - 1)
    with pytest.raises(
        ValueError, match=rf"{site.url} needs about \d\.\d\d MB in {tmp_path}, where .* are free: make room"
    ):
        download(site.url, SUM, tmp_path)
    assert not partials(tmp_path)
    assert len(site.requests) == 1


def test_a_resumed_file_needs_room_only_for_its_rest(site, tmp_path, monkeypatch):
    partial = tmp_path / f"{name(site.url)}.partial"
    partial.write_bytes(BODY[:HALF])
    partial.with_name(f"{partial.name}.etag").write_text('"one"')
    free(monkeypatch, HALF - 1)
    with pytest.raises(ValueError, match=r"needs about \d\.\d\d MB in .* are free: make room"):
        download(site.url, SUM, tmp_path)
    free(monkeypatch, HALF)
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY


def free(monkeypatch, space):
    usage = namedtuple("usage", "total used free")(2 * space, space, space)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


@pytest.mark.parametrize("length", [True, False])
def test_progress_counts_every_chunk_up_to_the_whole(site, tmp_path, length):
    site.length = length
    seen = []
    download(site.url, SUM, tmp_path, progress=lambda *progress: seen.append(progress))
    total = len(BODY) if length else None
    assert seen == [(min(done, len(BODY)), total) for done in range(CHUNK, len(BODY) + CHUNK, CHUNK)]


def test_threads_that_want_the_same_file_download_it_once(site, tmp_path):
    site.pause = 0.1
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: download(site.url, SUM, tmp_path), range(4)))
    assert {file.read_bytes() for file in files} == {BODY}
    assert site.requests == [WHOLE]


def test_processes_that_want_the_same_file_download_it_once(site, tmp_path):
    """The first one stops half-way until the others had time to come."""
    site.stalls, site.breaks = True, [HALF]
    processes = [start(site.url, tmp_path) for _ in range(3)]
    while not site.requests:
        time.sleep(0.01)
    time.sleep(0.3)
    site.breaks.clear()
    site.released.set()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / name(site.url)).read_bytes() == BODY
    assert [requested for requested, _ in site.requests] == [None, f"bytes={HALF}-"]
