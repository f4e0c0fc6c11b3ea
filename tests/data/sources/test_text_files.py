"""Text files of the user's own."""

import pytest

from mdpipe.data.raw import Document
from mdpipe.data.sources import read_source


def read(path, pattern="*.txt"):
    return list(read_source("text_files", path, pattern=pattern))


def test_a_file_is_a_document_named_by_its_place_in_the_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes("zw\u00f6i\r\n".encode())
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.md").write_text("no text file")
    assert read(tmp_path, "**/*.txt") == [Document("a.txt", "one"), Document("b/two.txt", "zw\u00f6i\r\n")]
    assert read(tmp_path) == [Document("a.txt", "one")]


def test_a_single_file_is_one_document(tmp_path):
    (tmp_path / "a.md").write_text("one")
    assert read(tmp_path / "a.md") == [Document("a.md", "one")]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    assert read(tmp_path) == [Document("a.txt", "one")]


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist; .* `path` in params\.yaml"):
        read(tmp_path / "nowhere")


def test_a_folder_without_a_fitting_file_is_named_with_the_pattern(tmp_path):
    (tmp_path / "a.md").write_text("one")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ValueError, match=r"no file in the folder .* fits '\*\.txt'; correct"):
        read(tmp_path)


@pytest.mark.parametrize("pattern", ["", "/etc/*"])
def test_a_pattern_that_is_no_relative_glob_is_refused(tmp_path, pattern):
    with pytest.raises(ValueError, match="no relative glob"):
        read(tmp_path, pattern)


def test_a_file_that_is_not_utf_8_is_named_with_the_byte_and_the_cure(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 noir")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8: byte 3 is 0xe9 .* `iconv"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["", " \n\t", "\ufeff"])
def test_a_file_without_text_is_named(tmp_path, content):
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.txt has no text; remove it"):
        read(tmp_path)
