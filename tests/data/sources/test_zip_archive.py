"""Members of zip archives, also of those that mean harm."""

import os
import random
import shutil
import struct
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from mdpipe.data.sources import download as downloading
from mdpipe.data.sources.download import extract_member

CONTENT = b"hello world\n" * 500
METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture
def folder(tmp_path):
    """Where members go; nothing may appear anywhere else."""
    (tmp_path / "a" / "b" / "out").mkdir(parents=True)
    return tmp_path / "a" / "b" / "out"


@pytest.fixture
def write(tmp_path):
    """Write an archive of some members."""

    def write(members, method=zipfile.ZIP_DEFLATED):
        path = tmp_path / "corpus.zip"
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return path

    return write


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".lock")


@methods
def test_a_member_comes_out_as_it_went_in(write, folder, method):
    archive = write({"text/train.txt": CONTENT, "text/test.txt": b"other"}, method)
    file = extract_member(archive, "text/train.txt", folder)
    assert file.read_bytes() == CONTENT
    assert file.parent == folder
    assert files_below(folder) == [file.name]


def test_two_members_never_share_a_file(write, folder):
    """Nor does one have the name of another one's lock."""
    names = ["a/b.txt", "a.b.txt", "a%2Fb.txt", "a/b/txt", "a//b.txt", "a", "a.lock", ".a.lock", "a.partial"]
    archive = write({name: name.encode() for name in names})
    files = [extract_member(archive, name, folder) for name in names]
    assert [file.read_bytes().decode() for file in files] == names
    assert files_below(folder) == sorted(file.name for file in files if file.suffix != ".lock")
    assert {file.parent for file in files} == {folder}


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil", "..", "", ".", "\\evil", "..\\evil", "C:evil"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path, write, folder, member):
    archive = write({"text.txt": CONTENT})
    before = files_below(tmp_path)
    with pytest.raises(ValueError, match=r"member = .* is outside of .*corpus\.zip; name a file that is within it"):
        extract_member(archive, member, folder)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("evil", ["../evil", "a/../../../evil", "/evil", "\\evil", "..\\..\\evil", "a\\..\\..\\evil"])
def test_an_archive_with_a_member_that_leads_out_is_refused(tmp_path, write, folder, evil):
    archive = write({"text.txt": CONTENT, evil: b"evil"})
    before = files_below(tmp_path)
    with pytest.raises(ValueError, match=r"corpus\.zip has a member '.*evil' that is outside of it"):
        extract_member(archive, "text.txt", folder)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("member", ["train.txt", "text", "text/", "TEXT/train.txt"])
def test_a_member_that_is_missing_is_named_with_those_there_are(write, folder, member):
    archive = write({"text/": b"", "text/train.txt": CONTENT, "read.me": b"x"})
    with pytest.raises(ValueError, match=rf"has no member '{member}'; it has: read\.me, text/train\.txt; .*`member`"):
        extract_member(archive, member, folder)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, folder):
    bomb = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("zeros.txt", "w") as member,
    ):
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(ValueError, match=r"'zeros\.txt' from [\d,]+ to 314,572,800 bytes: a decompression bomb"):
        extract_member(bomb, "zeros.txt", folder)
    assert files_below(folder) == []


def test_text_that_packs_well_is_no_bomb(write, folder):
    content = CONTENT * 500
    assert extract_member(write({"a.txt": content}), "a.txt", folder).stat().st_size == len(content)


@pytest.mark.parametrize("size", [10, 10**6])
def test_a_member_with_a_wrong_size_is_refused(write, folder, size):
    archive = write({"a.txt": CONTENT})
    true, wrong = struct.pack("<I", len(CONTENT)), struct.pack("<I", size)
    archive.write_bytes(archive.read_bytes().replace(true, wrong))
    with pytest.raises(ValueError, match=r"corpus\.zip is truncated or no zip archive"):
        extract_member(archive, "a.txt", folder)
    assert files_below(folder) == []


@methods
@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_truncated_archive_is_named_with_a_hint(write, folder, method, kept):
    archive = write({"a.txt": CONTENT}, method)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"corpus\.zip is truncated or no zip archive \(.*\); delete it and run again"):
        extract_member(archive, "a.txt", folder)
    assert files_below(folder) == []


@methods
def test_any_damage_ends_in_the_member_or_a_value_error(write, folder, method):
    content = write({"a.txt": CONTENT}, method).read_bytes()
    chance = random.Random(method)
    named = 0
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[-1 - chance.randrange(min(len(damaged), 150))] = chance.randrange(256)
        archive = folder.parent / "corpus.zip"
        archive.write_bytes(damaged)
        try:
            assert extract_member(archive, "a.txt", folder).read_bytes() == CONTENT
        except ValueError as error:
            assert "corpus.zip" in str(error)
            named += 1
        for file in folder.iterdir():
            file.unlink()
    assert named > 0


def test_a_member_that_needs_a_password_is_refused(write, folder):
    archive = write({"a.txt": CONTENT})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"corpus\.zip is truncated or no zip archive \(.*password"):
        extract_member(archive, "a.txt", folder)


def test_a_second_call_does_not_unpack_again(write, folder, monkeypatch):
    archive = write({"a.txt": CONTENT})
    first = extract_member(archive, "a.txt", folder)
    monkeypatch.setattr(downloading, "_extract", None)
    assert extract_member(archive, "a.txt", folder) == first


def test_another_archive_of_the_same_name_is_extracted_again(write, folder):
    extract_member(write({"a.txt": CONTENT}), "a.txt", folder)
    archive = write({"a.txt": CONTENT.upper()})
    later = archive.stat().st_mtime_ns + 10**9
    os.utime(archive, ns=(later, later))
    assert extract_member(archive, "a.txt", folder).read_bytes() == CONTENT.upper()


def test_a_member_that_was_cut_off_is_unpacked_again(write, folder):
    archive = write({"a.txt": CONTENT})
    file = extract_member(archive, "a.txt", folder)
    file.write_bytes(CONTENT[:10])
    assert extract_member(archive, "a.txt", folder).read_bytes() == CONTENT


def test_concurrent_readers_extract_a_member_once(write, folder, monkeypatch):
    archive = write({"a.txt": CONTENT})
    unpacked = []

    def slowly(files, entry, target):
        unpacked.append(target)
        time.sleep(0.1)
        return unpack(files, entry, target)

    unpack = downloading._extract
    monkeypatch.setattr(downloading, "_extract", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: extract_member(archive, "a.txt", folder).read_bytes(), range(4)))
    assert found == [CONTENT] * 4
    assert len(unpacked) == 1


def test_a_disk_that_is_too_small_is_named(write, folder, monkeypatch):
    archive = write({"a.txt": CONTENT})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(
        ValueError, match=r"^unpacking '.*' from .* needs about 0\.01 MB in .*out, where 0\.00 MB are f"
    ):
        extract_member(archive, "a.txt", folder)


def test_a_program_may_precede_the_archive_but_no_other_archive(write, folder):
    archive = write({"a.txt": CONTENT})
    content = archive.read_bytes()
    archive.write_bytes(b"#!/bin/sh\nexit\n" + content)
    assert extract_member(archive, "a.txt", folder).read_bytes() == CONTENT
    other = write({"a.txt": b"other"}).read_bytes()
    archive.write_bytes(content + other)
    with pytest.raises(ValueError, match=r"corpus\.zip is two concatenated archives"):
        extract_member(archive, "a.txt", folder)


def test_a_member_that_is_there_twice_is_refused(tmp_path, folder):
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "corpus.zip", "w") as file,
    ):
        for content in ("one", "two"):
            file.writestr("a.txt", content)
        file.writestr("b.txt", "three")
    with pytest.raises(ValueError, match=r"corpus\.zip has 2 members 'a\.txt'; pack it again with one"):
        extract_member(tmp_path / "corpus.zip", "a.txt", folder)
    assert extract_member(tmp_path / "corpus.zip", "b.txt", folder).read_bytes() == b"three"
