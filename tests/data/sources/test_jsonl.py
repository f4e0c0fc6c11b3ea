"""JSON lines."""

import json
from collections import Counter

import pytest

from mdpipe.data.sources.writer import write_shards
from tests.data.shards import read_documents, write_raw
from tests.data.sources.source_contents import counts_of, documents_of, shards_of, texts_of


def read(path, **settings):
    return documents_of("jsonl", path, **settings)


def test_a_line_is_a_document_named_by_file_and_first_byte(tmp_path):
    lines = [json.dumps({"text": text, "more": 1}, ensure_ascii=False) for text in ("one\ntwo", "dr\u00e9i \u2028")]
    content = "\ufeff" + lines[0] + "\n\n" + lines[1] + "\r\n"
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8", newline="")
    (tmp_path / "a.json").write_text("ignored")
    documents = read(tmp_path)
    assert [document.text for document in documents] == ["one\ntwo", "dr\u00e9i \u2028"]
    second = len(f"\ufeff{lines[0]}\n\n".encode())
    assert [document.name for document in documents] == ["a.jsonl:00000000000000", f"a.jsonl:{second:014d}"]


def test_documents_of_all_files_are_sorted_by_name(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "a.jsonl-b.jsonl", "b.jsonl"):
        (tmp_path / "in" / name).write_text('{"text": "x"}\n' * 11)
    write_raw(tmp_path / "raw", "jsonl", read(tmp_path / "in"))
    assert len(list(read_documents(tmp_path / "raw"))) == 33


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "x"', r"a\.jsonl:2: this is not JSON .*; correct the line"),
        (b'{"a":' * 100_000, r"a\.jsonl:2: this is not JSON .*; correct the line"),
        (b'"text"', r"a\.jsonl:2: this is not a JSON object but str"),
        (
            b'{"body": "x", "id": 1}',
            r"a\.jsonl:2: the line has no field 'text', only 'body', 'id'; correct the .*`columns`",
        ),
        (b"{}", r"a\.jsonl:2: the line has no field 'text', only none"),
        (b'{"text": ""}', r"a\.jsonl:2: the line has no text in 'text' but ''; .* `empty_documents`"),
        (b'{"text": null}', r"a\.jsonl:2: the line has no text in 'text' but ''; .* `empty_documents`"),
        (b'{"text": 7}', r"a\.jsonl:2: there is no text under 'text' but 7; correct or remove the line"),
        (b'{"text": "\\ud800"}', r"a\.jsonl:2: the line has half a surrogate pair in 'text', .* `decode_errors` in"),
        (b'{"text": "caf\xe9"}', r"a\.jsonl:2: it is not UTF-8: byte 29 is 0xe9 .* `iconv"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_a_hint(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}' + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.jsonl")


def test_a_folder_without_json_lines_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file in the folder .*, which is empty, fits '\*\.jsonl'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "texts", "counts"),
    [
        ({"empty_documents": "drop"}, ["one", "caf\ufffd"], {"empty rows left out": 3}),
        ({"empty_documents": "keep"}, ["one", "", " \n", "", "caf\ufffd"], {}),
        ({"empty_documents": "drop", "decode_errors": "ignore"}, ["one"], {"empty rows left out": 3}),
    ],
)
def test_empty_and_broken_texts_follow_settings_and_are_counted(tmp_path, settings, texts, counts):
    lines = [b'{"text": "one"}', b'{"text": ""}', b'{"text": " \\n"}', b'{"text": null}', b'{"text": "caf\xe9"}', b""]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    settings = {"decode_errors": "replace", **settings}
    done = "left out" if settings["decode_errors"] == "ignore" else "replaced"
    assert texts_of("jsonl", tmp_path, **settings) == texts
    assert counts_of("jsonl", tmp_path, **settings) == {**counts, f"documents with broken UTF-8 {done}": 1}


@pytest.mark.parametrize(("policy", "middle"), [("ignore", []), ("replace", ["half \ufffd a pair \U0001f600"])])
def test_half_a_surrogate_pair_follows_decode_errors(tmp_path, policy, middle):
    lines = ['{"text": "one"}', r'{"text": "half \udcb2 a pair \ud83d\ude00"}', '{"text": "two"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert texts_of("jsonl", tmp_path, decode_errors=policy) == ["one", *middle, "two"]
    done = "left out" if policy == "ignore" else "replaced"
    assert counts_of("jsonl", tmp_path, decode_errors=policy) == {f"documents with broken UTF-8 {done}": 1}


def test_a_source_of_which_all_was_left_out_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "\\ud800"}\n{"text": " "}')
    shards = shards_of("jsonl", tmp_path, empty_documents="drop", decode_errors="ignore")
    counted = r"\(found: 1 file; 3 rows; 1 document with broken UTF-8 left out; 2 empty rows left out\)"
    with pytest.raises(ValueError, match=rf"no documents or images; check its settings .* {counted}$"):
        write_shards(tmp_path / "raw", "jsonl", shards, tmp_path / "work_dir")


def test_a_detokenizer_is_applied_to_every_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "it was n\'t"}\n{"text": "<unk>"}\n')
    assert texts_of("jsonl", tmp_path, detokenizer="ptb") == ["it wasn't", "?"]


def test_patterns_can_be_the_splits_of_the_source(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}-0.jsonl").write_text(json.dumps({"text": split}))
    shards = shards_of("jsonl", tmp_path, pattern={"validation": "validation-*", "train": "train-*"})
    assert [(shard.split, next(shard.read(Counter())).text) for shard in shards] == [
        ("train", "train"),
        ("validation", "validation"),
    ]


@pytest.mark.parametrize("content", ['[{"text": "one"}, {"text": "two"}]', '[\n {"text": "one"}\n]\n'])
def test_an_array_is_refused_with_what_to_do(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json:1: this begins a JSON array; write one object per line, .* `jq -c"):
        texts_of("jsonl", tmp_path, pattern="*.json")


def test_a_field_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one", "id": 1, "id": 2}\n{"text": "one", "text": "two"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the line has 2 fields 'text'; keep or rename all but one"):
        texts_of("jsonl", tmp_path)
