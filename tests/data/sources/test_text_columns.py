"""`columns` means the same for every kind with text in columns."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdpipe.params.sources import ColumnsSource, Source
from tests.data.sources.source_contents import texts_of

ROWS = [("A", "one"), ("B", ""), ("", "three"), ("D", "two\nlines"), ("", "")]
JOINED = ["A\none", "B", "three", "D\ntwo\nlines"]


def write(kind, folder):
    table = pa.table({"body": [body for _, body in ROWS], "title": [title or None for title, _ in ROWS]})
    match kind:
        case "csv":
            lines = [f'"{body}","{title}"' for title, body in ROWS]
            (folder / "a.csv").write_text("\n".join(["body,title", *lines]))
        case "jsonl" | "url":
            (folder / "a.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
        case "parquet":
            pq.write_table(table, folder / "a.parquet")
        case "arrow":
            with pa.ipc.new_file(folder / "a.arrow", table.schema) as file:
                file.write_table(table)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow"])
def test_columns_that_are_not_empty_are_joined_in_their_order(tmp_path, kind):
    write(kind, tmp_path)
    settings = {"pattern": f"*.{kind}", "empty_documents": "drop"}
    kind = "parquet" if kind == "arrow" else kind
    assert texts_of(kind, tmp_path, columns=["title", "body"], **settings) == JOINED
    assert texts_of(kind, tmp_path, columns=["body"], **settings) == [body for _, body in ROWS if body]
    with pytest.raises(ValueError, match=r"has no text in 'title' and 'body' but ''; correct or remove it, or set the"):
        texts_of(kind, tmp_path, columns=["title", "body"], pattern=settings["pattern"])


@pytest.mark.slow
def test_a_data_set_in_the_layout_of_the_hub_joins_them_too(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "hub").mkdir()
    write("parquet", tmp_path / "hub")
    settings = {"name": str(tmp_path / "hub"), "columns": ["title", "body"], "empty_documents": "drop"}
    assert texts_of("huggingface", tmp_path / "downloads", **settings) == JOINED


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "huggingface", "url"])
def test_the_old_keys_are_refused_with_the_new_one(kind):
    own = {"huggingface": {"name": "a/b"}, "url": {"url": "https://example.org/a.jsonl"}}.get(kind, {})
    for old in ("field", "column"):
        with pytest.raises(ValueError, match=f"unknown key '{old}', now `columns`"):
            Source.parse({"kind": kind, "path": "my", old: "body", **own})
    with pytest.raises(ValueError, match="text is there a second time"):
        Source.parse({"kind": kind, "path": "my", "columns": ["text", "text"], **own})


def test_the_setting_is_stated_once():
    assert {kind for kind, config in Source.kinds.items() if issubclass(config, ColumnsSource)} == {
        "csv",
        "huggingface",
        "jsonl",
        "parquet",
    }
