"""Text behind a URL, of a server on this machine."""

import bz2
import gzip
import hashlib
import json
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from mdpipe.data.raw import Document
from tests.data.sources.source_contents import documents_of, shards_of, texts_of

TEXT = "one caf\u00e9\n\ntwo"
JSON_LINES = "".join(json.dumps({"text": text}) + "\n" for text in ("one", "two"))


class Handler(SimpleHTTPRequestHandler):
    """Records the requests."""

    def log_message(self, *message):
        self.server.requests.append(self.path)


@pytest.fixture
def site(tmp_path):
    """Serve the files of the folder `www`."""
    (tmp_path / "www").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "www")) as server:
        server.requests = []
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def read(tmp_path, site, monkeypatch):
    """The documents of a file of the site."""
    for variable in ("MDPIPE_OFFLINE", "HF_HUB_OFFLINE", "MDPIPE_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def read(name, content=None, **settings):
        if content is not None:
            (tmp_path / "www" / name).write_bytes(content)
        url = f"http://127.0.0.1:{site.server_port}/{name}"
        return documents_of("url", tmp_path / "downloads", url=url, **settings)

    return read


@pytest.fixture
def archive(tmp_path):
    """A zip archive of the site with a text and JSON lines."""
    (tmp_path / "www").mkdir(exist_ok=True)
    with zipfile.ZipFile(tmp_path / "www" / "corpus-v1.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("corpus/train.txt", TEXT)
        file.writestr("corpus/train.jsonl", JSON_LINES)
    return "corpus-v1.zip"


@pytest.fixture
def digest():
    def digest(content):
        return hashlib.sha256(content).hexdigest()

    return digest


def test_a_plain_text_is_a_document_named_after_its_file(read):
    assert read("novel.txt", TEXT.encode()) == [Document("novel.txt", TEXT)]


def test_a_line_is_a_document_with_sample_by_line(read):
    assert read("novel.txt", TEXT.encode(), sample_by="line", empty_documents="drop") == [
        Document("novel.txt:00000000000000", "one caf\u00e9"),
        Document("novel.txt:00000000000011", "two"),
    ]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_packed_text_is_unpacked(read, suffix, pack):
    assert read(f"novel.txt{suffix}", pack(TEXT.encode())) == [Document(f"novel.txt{suffix}", TEXT)]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_json_lines_have_their_texts_under_a_field(read, suffix, pack):
    assert read(f"a.jsonl{suffix}", pack(JSON_LINES.encode()), columns=["text"]) == [
        Document(f"a.jsonl{suffix}:00000000000000", "one"),
        Document(f"a.jsonl{suffix}:00000000000016", "two"),
    ]
    with pytest.raises(ValueError, match=r"a\.jsonl.*:1: the line has no field 'body', only 'text'"):
        read(f"a.jsonl{suffix}", columns=["body"])


@pytest.mark.parametrize(
    ("member", "columns", "texts"),
    [("corpus/train.txt", None, [TEXT]), ("corpus/train.jsonl", ["text"], ["one", "two"])],
)
def test_a_member_of_a_zip_archive_can_be_meant(read, archive, member, columns, texts):
    documents = read(archive, member=member, columns=columns)
    assert [document.text for document in documents] == texts
    assert documents[0].name.startswith(f"{archive}.{member.replace('/', '%2F')}")


def test_a_missing_member_is_named_with_those_there_are(read, archive):
    with pytest.raises(ValueError, match=r"has no member 'test\.txt'; it has: corpus/train\.jsonl, corpus/train\.txt"):
        read(archive, member="test.txt")


def test_what_is_no_archive_has_no_members(read):
    with pytest.raises(ValueError, match=r"novel\.txt is truncated or no zip archive"):
        read("novel.txt", TEXT.encode(), member="train.txt")


def test_it_is_fetched_once(tmp_path, read, site, archive):
    for _ in range(2):
        for member in ("corpus/train.txt", "corpus/train.jsonl"):
            read(archive, member=member)
    assert site.requests == [f"/{archive}"]
    (tmp_path / "www" / archive).unlink()
    assert [document.text for document in read(archive, member="corpus/train.txt")] == [TEXT]


def test_a_checksum_is_verified(read, digest):
    assert read("novel.txt", TEXT.encode(), sha256=digest(TEXT.encode())) == [Document("novel.txt", TEXT)]
    with pytest.raises(ValueError, match=r"novel\.txt has SHA-256 .* correct sources\.\*\.sha256"):
        read("novel.txt", sha256=digest(b"other"))
    with pytest.raises(ValueError, match=r"other\.txt has SHA-256 .* what was downloaded is deleted"):
        read("other.txt", TEXT.encode(), sha256=digest(b"other"))


def test_an_address_that_the_server_does_not_know_is_named(read):
    with pytest.raises(ValueError, match=r"nothing\.txt is refused with status 404"):
        read("nothing.txt")


def test_broken_utf_8_and_empty_texts_follow_their_settings(read):
    assert read("a.txt", b"caf\xe9\n\nb", sample_by="line", decode_errors="replace", empty_documents="keep") == [
        Document("a.txt:00000000000000", "caf\ufffd"),
        Document("a.txt:00000000000005", ""),
        Document("a.txt:00000000000006", "b"),
    ]
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8: byte 3 is 0xe9"):
        read("a.txt")
    with pytest.raises(ValueError, match="has no text"):
        read("b.txt", b" \n")
    assert [document.text for document in read("c.txt", b"it was n't", detokenizer="ptb")] == ["it wasn't"]


def test_it_has_no_splits_of_its_own(tmp_path, site, read):
    read("novel.txt", TEXT.encode())
    url = f"http://127.0.0.1:{site.server_port}/novel.txt"
    assert [shard.split for shard in shards_of("url", tmp_path / "downloads", url=url)] == [None]
    assert texts_of("url", tmp_path / "downloads", url=url) == [TEXT]
