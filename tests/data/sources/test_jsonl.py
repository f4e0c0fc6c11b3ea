"""JSON lines of the user's own."""

import json

import pytest

from mdpipe.data.raw import read_documents, write_raw
from mdpipe.data.sources import read_source


def read(path):
    return list(read_source("jsonl", path, field="text"))


def test_a_line_is_a_document_named_by_file_and_number(tmp_path):
    lines = [json.dumps({"text": text, "more": 1}, ensure_ascii=False) for text in ("one\ntwo", "dr\u00e9i \u2028")]
    (tmp_path / "a.jsonl").write_text("\ufeff" + lines[0] + "\n\n" + lines[1] + "\n", encoding="utf-8")
    (tmp_path / "a.json").write_text("ignored")
    documents = read(tmp_path)
    assert [document.text for document in documents] == ["one\ntwo", "dr\u00e9i \u2028"]
    assert [document.name for document in documents] == ["a.jsonl:000000000001", "a.jsonl:000000000003"]


def test_documents_of_all_files_are_sorted_as_raw_folders_need_them(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "a.jsonl-b.jsonl", "b.jsonl"):
        (tmp_path / "in" / name).write_text('{"text": "x"}\n' * 11)
    write_raw(tmp_path / "raw", "jsonl", read_source("jsonl", tmp_path / "in", field="text"))
    assert len(list(read_documents(tmp_path / "raw"))) == 33


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "x"', r"a\.jsonl:2 is no JSON .*; correct the line"),
        (b'"text"', r"a\.jsonl:2 is no JSON object but str"),
        (b'{"body": "x", "id": 1}', r"a\.jsonl:2 has no field 'text', only 'body', 'id'; correct the source's `field`"),
        (b"{}", r"a\.jsonl:2 has no field 'text', only none"),
        (b'{"text": ""}', r"a\.jsonl:2 has no text under 'text' but ''"),
        (b'{"text": null}', r"a\.jsonl:2 has no text under 'text' but None"),
        (b'{"text": "\\ud800"}', r"a\.jsonl:2 has half a surrogate pair under 'text'"),
        (b'{"text": "caf\xe9"}', r"a\.jsonl:2 is not UTF-8: byte 29 is 0xe9 .* `iconv"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_the_cure(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}' + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.jsonl")


def test_a_folder_without_json_lines_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file in the folder .* fits '\*\.jsonl'"):
        read(tmp_path)
