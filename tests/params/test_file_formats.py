"""A source whose files another kind reads is refused with that kind, before anything is read."""

from pathlib import Path

import pytest
import yaml

from mdpipe.commands.check import describe
from mdpipe.file_formats import ending
from mdpipe.params import ParamsError, parse_params

SMOKE = yaml.safe_load((Path(__file__).parents[2] / "workflow/presets/smoke.yaml").read_text())
TEXT = {"empty_rows": "error", "detokenizer": None}
TABLE = {"kind": "table", "column": "text", **TEXT}
JSON_LINES = {"kind": "jsonl", "field": "text", "broken_utf8": "error", **TEXT}
PLAIN = {"kind": "text_files", "documents": "line", "broken_utf8": "error", **TEXT}
CSV = {"kind": "csv", "columns": ["text"], "delimiter": ",", "header": True, "encoding": "utf-8", **TEXT}
RESIZED = {"mode": None, "resize": None}
IMAGE_TABLE = {"kind": "image_table", "image": "image", "label": None, **RESIZED}
IMAGE_TAR = {"kind": "image_tar", **RESIZED}


def parsed(source):
    return parse_params({**SMOKE, "sources": {**SMOKE["sources"], "notes": source}}, "params.yaml")


def refused(source):
    with pytest.raises(ParamsError) as error:
        parsed(source)
    return str(error.value)


@pytest.mark.parametrize(
    ("source", "name", "hint"),
    [
        (TABLE, "*.csv", "`kind: table` does not read .csv files: use `kind: csv`"),
        (TABLE, "*.tsv.gz", "use `kind: csv`"),
        (TABLE, "*.jsonl", "use `kind: jsonl`"),
        (TABLE, "*.xlsx", "save it as CSV (UTF-8) and use `kind: csv`"),
        (JSON_LINES, "*.parquet", "use `kind: table`"),
        (JSON_LINES, "*.csv", "use `kind: csv`"),
        (PLAIN, "**/*.parquet", "use `kind: table`"),
        (PLAIN, "*.xlsx", "save it as CSV"),
        (PLAIN, "*.zip", "unpack it"),
        (PLAIN, "*.npz", "does not read .npz files (pictures)"),
        (CSV, "*.parquet", "use `kind: table`"),
        (CSV, "*.jsonl.zst", "use `kind: jsonl`"),
        (IMAGE_TAR, "*.zip", "unpack it"),
        (IMAGE_TAR, "*.parquet", "use `kind: image_table`"),
        (IMAGE_TABLE, "*.csv", "does not read .csv files"),
        (IMAGE_TABLE, "*.tar", "use `kind: image_tar`"),
    ],
)
def test_files_of_another_kind_are_refused_by_path_and_by_pattern(source, name, hint):
    told = refused({**source, "path": "my/notes", "pattern": {"train": name, "test": "test/*"}})
    assert told.startswith(f"params.yaml: sources.notes.pattern.train: {name!r} is refused: ")
    assert hint in told
    path = f"my/notes{name[name.index('.') :]}"
    told = refused({**source, "path": path, "pattern": "*"})
    assert told.startswith(f"params.yaml: sources.notes.path: {path!r} is refused: ")
    assert hint in told


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (TABLE, "*.arrow"),
        (JSON_LINES, "*.json.gz"),
        (JSON_LINES, "*.ndjson"),
        (PLAIN, "*.txt.gz"),
        (PLAIN, "*"),
        (PLAIN, "*.md"),
        (CSV, "*.tsv.zst"),
        (CSV, "*.txt"),
        (CSV, "**/part-*"),
        (IMAGE_TAR, "*.tar.gz"),
        (IMAGE_TAR, "*.tgz"),
    ],
)
def test_files_that_the_kind_may_read_are_not(source, name):
    assert parsed({**source, "path": "my/notes.v1", "pattern": name})


def test_the_pattern_does_not_count_where_the_path_is_a_file(tmp_path):
    (tmp_path / "a.parquet").touch()
    assert parsed({**TABLE, "path": str(tmp_path / "a.parquet"), "pattern": "*.csv"})


def test_check_says_that_rows_of_tables_are_read_as_plain_text():
    shown = describe(parsed({**PLAIN, "path": "my/notes", "pattern": "*.csv"}))
    assert "\n    .csv files as plain text; `kind: csv` reads their rows\n" in shown
    assert "plain text" not in describe(parsed({**PLAIN, "path": "my/notes", "pattern": "*.txt"}))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"delimiter": ",,"}, "sources.notes.delimiter: ',,'"),
        ({"delimiter": '"'}, "sources.notes.delimiter"),
        ({"columns": []}, "sources.notes.columns"),
        ({"header": []}, "sources.notes.header"),
        ({"header": False}, "sources.notes.header"),
        ({"encoding": "excel"}, "'excel' is refused: Python knows no such text encoding"),
        ({"encoding": "base64"}, "'base64' is refused: Python knows no such text encoding"),
    ],
)
def test_settings_of_a_csv_source_are_checked(change, part):
    assert part in refused({**CSV, "path": "my/a.csv", "pattern": "*", **change})


@pytest.mark.parametrize("kind", ["hub", "hub_images"])
def test_a_local_folder_of_a_hub_source_is_the_path_that_dvc_watches(tmp_path, kind):
    source = {"kind": kind, "name": str(tmp_path), "config": None, "splits": ["train"], "revision": None}
    source |= {"column": "text", **TEXT} if kind == "hub" else {"image": "image", "label": None, **RESIZED}
    told = refused({**source, "path": "constraints.txt"})
    assert (
        "sources.notes.path: 'constraints.txt' is refused: `name` is a folder here, and DVC watches only `path`" in told
    )
    assert parsed({**source, "path": str(tmp_path)})
    assert parsed({**source, "path": str(tmp_path.parent)})
    assert parsed({**source, "name": "owner/name", "path": "constraints.txt"})


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("*.csv", ".csv"), ("a.CSV.GZ", ".csv"), ("a.tar.zst", ".tar"), ("a.tgz", ".tar"), ("a.gz", ""), ("a", "")],
)
def test_the_ending_of_a_name_is_that_of_what_is_packed(name, suffix):
    assert ending(name) == suffix
