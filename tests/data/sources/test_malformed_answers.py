"""Servers whose answers are malformed, disks that a download fills, and URLs with secrets: one sentence each."""

import errno
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from mdpipe.data.sources.download import ATTEMPTS, download
from tests.data.sources.http_server import BODY, CHUNK, SUM, make_quick, name, partials, serve


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    make_quick(monkeypatch)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def site():
    with serve() as site:
        yield site


@pytest.mark.parametrize("length", ["-1", "-200000", "many", "", "1e5", "0x10", "9" * 30])
def test_a_length_that_is_no_number_is_refused_in_a_sentence(site, tmp_path, length):
    site.more = {"Content-Length": length}
    message = rf"{re.escape(site.url)} states the Content-Length {length[:40]!r}, which is not a number of bytes"
    with pytest.raises(ValueError, match=message):
        download(site.url, SUM, tmp_path)
    assert len(site.requests) == 1
    assert not partials(tmp_path)


def test_two_lengths_are_refused_in_a_sentence(site, tmp_path):
    site.more = {"Content-Length": "12, 13"}
    with pytest.raises(ValueError, match=r"cannot be downloaded \(Content-Length contained multiple unmatching values"):
        download(site.url, SUM, tmp_path)


def test_a_length_that_is_too_short_is_found_by_the_checksum(site, tmp_path):
    site.more = {"Content-Length": "1000"}
    with pytest.raises(ValueError, match=r"text8\.zip has SHA-256 .* what was downloaded is deleted"):
        download(site.url, SUM, tmp_path)


@pytest.mark.parametrize("total", ["9" * 5000, "-1", "x"])
def test_a_range_of_a_malformed_length_is_not_used(site, tmp_path, total):
    site.breaks, site.version = [CHUNK], {"ETag": '"one"', "Content-Range": f"bytes {CHUNK}-5/{total}"}
    with pytest.raises(ValueError, match=rf"not downloaded in {ATTEMPTS} attempts \(status 206, which does not go on"):
        for _ in range(2):
            site.breaks = [CHUNK] * ATTEMPTS
            download(site.url, SUM, tmp_path)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("/moved/again", "Exceeded 30 redirects"),
        ("file:///etc/passwd", "No connection adapters were found"),
        ("ftp://127.0.0.1/a", "No connection adapters were found"),
        ("http://[::1", "cannot be downloaded"),
        ("http://127.0.0.1:999999/a", "cannot be downloaded"),
        ("", "is refused with status 302"),
    ],
)
def test_a_broken_redirection_is_refused_in_a_sentence(site, tmp_path, location, why):
    site.location = location
    with pytest.raises(ValueError, match=why) as refused:
        download(site.url, SUM, tmp_path)
    assert str(refused.value).startswith(site.url)
    assert "\n" not in str(refused.value)
    assert not partials(tmp_path)


@pytest.mark.parametrize("url", ["http://[::1/a", "http://127.0.0.1:99999/a", "http://.../a", f"http://{'a' * 70}/b"])
def test_an_address_that_is_none_is_refused_in_a_sentence(tmp_path, url):
    with pytest.raises(ValueError, match=re.escape(url.split("/a")[0])):
        download(url, None, tmp_path)


def test_a_download_that_fills_the_disk_is_removed(site, tmp_path, monkeypatch):
    site.length = False
    written = 10 * CHUNK

    def left(folder):
        free = written - sum(file.stat().st_size for file in partials(Path(folder)) if file.suffix == ".partial")
        return namedtuple("usage", "total used free")(0, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", left)
    message = rf"{re.escape(site.url)} does not fit the disk of .* full after {written:,} bytes; .* is deleted"
    with pytest.raises(ValueError, match=message):
        download(site.url, SUM, tmp_path)
    assert not partials(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_others_fill_is_named_with_the_source(site, tmp_path, monkeypatch, code):
    opened = Path.open

    def full(path, mode="r", *more, **settings):
        if path.suffix == ".partial" and mode == "ab" and path.exists() and path.stat().st_size >= 2 * CHUNK:
            raise OSError(code, "full")
        return opened(path, mode, *more, **settings)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ValueError, match=r"text8\.zip does not fit the disk"):
        download(site.url, SUM, tmp_path)
    assert not partials(tmp_path)


SECRET = "me:s3cret@"
QUERY = "?token=t0ken"


@pytest.mark.parametrize(
    "case",
    ["refused", "busy", "gone", "checksum", "offline", "full", "length", "loop", "redirected", "mirror", "hung up"],
)
def test_no_message_has_user_password_or_query_of_a_url(site, tmp_path, monkeypatch, case):
    url = site.url.replace("//", f"//{SECRET}") + QUERY
    match case:
        case "refused":
            site.status = [403]
        case "busy":
            site.status = [503] * ATTEMPTS
        case "gone":
            url = f"http://{SECRET}127.0.0.1:1/a{QUERY}"
        case "offline":
            monkeypatch.setenv("MDPIPE_OFFLINE", "1")
        case "full":
            monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(0))
        case "length":
            site.more = {"Content-Length": "many"}
        case "loop":
            site.location = url
        case "redirected":
            site.location = f"http://{SECRET}127.0.0.1:1/b{QUERY}"
        case "mirror":
            monkeypatch.setenv("MDPIPE_MIRROR", f"ftp://{SECRET}127.0.0.1")
        case "hung up":
            site.breaks = [0] * ATTEMPTS
    with pytest.raises(ValueError, match=r"127\.0\.0\.1") as refused:
        download(url, "0" * 64, tmp_path)
    assert not re.search("s3cret|t0ken|me:|0x", str(refused.value))
    assert refused.value.__cause__ is None
    assert not [file for file in tmp_path.rglob("*") if re.search("s3cret|t0ken", file.name)]


def test_user_and_password_may_be_in_a_netrc_file(site, tmp_path):
    site.needs_password = True
    with pytest.raises(ValueError, match="is refused with status 401"):
        download(site.url, SUM, tmp_path)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    assert download(site.url, SUM, tmp_path) == tmp_path / name(site.url)
    assert (tmp_path / name(site.url)).read_bytes() == BODY
