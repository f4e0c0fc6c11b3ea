"""Downloads from a server that misbehaves: resumed where they broke off, and tried again within bounds."""

import re
import time

import pytest

from mdpipe.data.sources import download as downloading
from mdpipe.data.sources.download import ATTEMPTS, download
from tests.data.sources.http_server import BODY, CHUNK, HALF, SUM, WHOLE, make_quick, name, partials, serve, start


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch)


@pytest.fixture
def site():
    with serve() as site:
        yield site


@pytest.mark.parametrize("version", [{"ETag": '"one"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_a_broken_connection_is_resumed_with_a_range(site, tmp_path, version):
    site.version, site.breaks = version, [HALF, HALF // 2]
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    tag = next(iter(version.values()))
    assert site.requests == [WHOLE, (f"bytes={HALF}-", tag), (f"bytes={HALF + HALF // 2}-", tag)]


def test_a_redirection_is_followed_and_changes_no_name(site, tmp_path):
    site.breaks = [HALF]
    url = site.url.replace("/dc/", "/moved/")
    assert download(url, SUM, tmp_path) == tmp_path / name(url)
    assert site.requests == [WHOLE, WHOLE, *[(f"bytes={HALF}-", '"one"')] * 2]


def test_if_range_has_the_date_if_the_etag_is_weak(site, tmp_path):
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    site.version, site.breaks = {"ETag": 'W/"one"', "Last-Modified": date}, [HALF]
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE, (f"bytes={HALF}-", date)]


@pytest.mark.parametrize("version", [{}, {"ETag": 'W/"one"'}])
def test_a_file_without_a_version_is_started_over(site, tmp_path, version):
    site.version, site.breaks = version, [HALF]
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE, WHOLE]


def test_a_server_that_ignores_ranges_starts_over(site, tmp_path):
    site.ranges, site.breaks = False, [HALF]
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE, (f"bytes={HALF}-", '"one"')]


@pytest.mark.parametrize("asks_version", [True, False])
def test_bytes_of_two_versions_are_never_mixed(site, tmp_path, monkeypatch, asks_version):
    """Without a checksum, which would find out; some servers answer a range whatever If-Range says."""
    site.asks_version, site.breaks = asks_version, [HALF]
    with monkeypatch.context() as once, pytest.raises(ValueError, match="run again"):
        once.setattr(downloading, "ATTEMPTS", 1)
        download(site.url, None, tmp_path)
    site.body, site.version = BODY[::-1], {"ETag": '"two"'}
    assert download(site.url, None, tmp_path).read_bytes() == BODY[::-1]
    assert site.requests == [WHOLE, (f"bytes={HALF}-", '"one"'), WHOLE][: 2 if asks_version else 3]


def test_a_range_that_begins_elsewhere_is_not_used(site, tmp_path):
    site.shift, site.breaks = -10, [HALF]
    assert download(site.url, None, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE, (f"bytes={HALF}-", '"one"'), WHOLE]


def test_a_range_that_ends_early_is_continued(site, tmp_path):
    site.breaks, site.longest = [HALF], HALF - 10
    assert download(site.url, None, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE, (f"bytes={HALF}-", '"one"'), (f"bytes={len(BODY) - 10}-", '"one"')]


def test_a_range_that_is_refused_starts_over(site, tmp_path):
    partial = tmp_path / f"{name(site.url)}.partial"
    partial.write_bytes(BODY + b"more")
    partial.with_name(f"{partial.name}.etag").write_text('"one"')
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.requests == [(f"bytes={len(BODY) + 4}-", '"one"'), WHOLE]


def test_a_length_that_is_never_reached_is_no_success(site, tmp_path):
    site.extra_length = 10
    with pytest.raises(ValueError, match=rf"not downloaded in {ATTEMPTS} attempts"):
        download(site.url, None, tmp_path)
    assert len(site.requests) == ATTEMPTS
    assert not (tmp_path / name(site.url)).exists()


def test_a_download_resumes_after_a_kill(site, tmp_path):
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
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE, (f"bytes={left}-", '"one"')]
    assert not partials(tmp_path)


@pytest.mark.parametrize("status", [403, 404, 410, 204])
def test_a_refusal_is_final_after_one_request(site, tmp_path, status):
    site.status = [status] * 2
    with pytest.raises(ValueError, match=rf"{re.escape(site.url)} is refused with status {status}"):
        download(site.url, SUM, tmp_path)
    assert len(site.requests) == 1


def test_a_busy_server_is_retried(site, tmp_path):
    site.status = [503, 429, 500]
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE] * 4


def test_after_the_last_attempt_the_error_has_a_hint(site, tmp_path):
    site.status = [503] * ATTEMPTS
    file = re.escape(str(tmp_path / name(site.url)))
    with pytest.raises(ValueError, match=rf"status 503.*; run again .*, or save the file as {file} yourself"):
        download(site.url, SUM, tmp_path)
    assert len(site.requests) == ATTEMPTS
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"http://127.0.0.1:1/a was not downloaded in {ATTEMPTS} attempts"):
        download("http://127.0.0.1:1/a", None, tmp_path)


def test_a_silent_server_is_retried(site, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "TIMEOUT", 0.1)
    site.stalls, site.breaks = True, [CHUNK * 10]
    assert download(site.url, SUM, tmp_path).read_bytes() == BODY
    assert site.requests == [WHOLE, (f"bytes={CHUNK * 10}-", '"one"')]


def test_waits_grow_to_a_bound(site, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(downloading, "FIRST_WAIT", 2.0)
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    site.status = [503] * ATTEMPTS
    with pytest.raises(ValueError, match="status 503"):
        download(site.url, None, tmp_path)
    waits = [wait for wait in waits if wait]  # the server sleeps too, but for no time
    assert len(waits) == ATTEMPTS - 1
    assert all(2**n < wait <= 2**n + 2 for n, wait in enumerate(waits[:-1], start=1))
    assert downloading.LONGEST_WAIT - 2 <= waits[-1] <= downloading.LONGEST_WAIT


def test_progress_goes_on_where_the_download_does(site, tmp_path):
    site.breaks = [HALF]
    seen = []
    download(site.url, SUM, tmp_path, progress=lambda *progress: seen.append(progress))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {len(BODY)}
    assert seen[-1] == (len(BODY), len(BODY))
