"""A source whose files another kind reads is refused with that kind, before anything is read."""

from pathlib import Path

import pytest
import yaml

from mdpipe.commands.check import describe
from mdpipe.file_formats import ending
from mdpipe.params import ParamsError, parse_params

SMOKE = yaml.safe_load((Path(__file__).parents[2] / "workflow/presets/smoke.yaml").read_text())
PARQUET, JSON_LINES, PLAIN, CSV = {"kind": "parquet"}, {"kind": "jsonl"}, {"kind": "text"}, {"kind": "csv"}
PARQUET_IMAGES, IMAGE_TAR = {"kind": "parquet_images"}, {"kind": "image_tar"}


def parse(source):
    return parse_params({**SMOKE, "sources": {**SMOKE["sources"], "notes": source}}, "params.yaml")


def error_of(source):
    with pytest.raises(ParamsError) as error:
        parse(source)
    return str(error.value)


@pytest.mark.parametrize(
    ("source", "name", "hint"),
    [
        (PARQUET, "*.csv", "`kind: parquet` does not read .csv files: use `kind: csv`"),
        (PARQUET, "*.tsv.gz", "use `kind: csv`"),
        (PARQUET, "*.jsonl", "use `kind: jsonl`"),
        (PARQUET, "*.xlsx", "save it as CSV (UTF-8) and use `kind: csv`"),
        (JSON_LINES, "*.parquet", "use `kind: parquet`"),
        (JSON_LINES, "*.csv", "use `kind: csv`"),
        (PLAIN, "**/*.parquet", "use `kind: parquet`"),
        (PLAIN, "*.xlsx", "save it as CSV"),
        (PLAIN, "*.zip", "unpack it"),
        (PLAIN, "*.npz", "does not read .npz files (images)"),
        (CSV, "*.parquet", "use `kind: parquet`"),
        (CSV, "*.jsonl.zst", "use `kind: jsonl`"),
        (IMAGE_TAR, "*.zip", "unpack it"),
        (IMAGE_TAR, "*.parquet", "use `kind: parquet_images`"),
        (PARQUET_IMAGES, "*.csv", "does not read .csv files"),
        (PARQUET_IMAGES, "*.tar", "use `kind: image_tar`"),
    ],
)
def test_files_of_another_kind_are_refused(source, name, hint):
    message = error_of({**source, "path": "my/notes", "pattern": {"train": name, "test": "test/*"}})
    assert message.startswith(f"params.yaml: sources.notes.pattern.train: {name!r} is refused: ")
    assert hint in message
    path = f"my/notes{name[name.index('.') :]}"
    message = error_of({**source, "path": path, "pattern": "*"})
    assert message.startswith(f"params.yaml: sources.notes.path: {path!r} is refused: ")
    assert hint in message


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (PARQUET, "*.arrow"),
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
    assert parse({**source, "path": "my/notes.v1", "pattern": name})


def test_the_pattern_does_not_count_where_the_path_is_a_file(tmp_path):
    (tmp_path / "a.parquet").touch()
    assert parse({**PARQUET, "path": str(tmp_path / "a.parquet"), "pattern": "*.csv"})


def test_check_says_that_rows_of_tables_are_read_as_plain_text():
    shown = describe(parse({**PLAIN, "path": "my/notes", "pattern": "*.csv"}))
    assert "\n    .csv files are read as plain text; `kind: csv` reads their rows\n" in shown
    assert "plain text" not in describe(parse({**PLAIN, "path": "my/notes", "pattern": "*.txt"}))


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
    assert part in error_of({**CSV, "path": "my/a.csv", "pattern": "*", **change})


@pytest.mark.parametrize("columns", [{}, {"image_column": "image"}])
def test_a_local_hub_folder_is_the_path_that_dvc_watches(tmp_path, columns):
    source = {"kind": "huggingface", "name": str(tmp_path), **columns}
    message = error_of({**source, "path": "constraints.txt"})
    assert (
        "sources.notes.path: 'constraints.txt' is refused: `name` is a folder here, and DVC watches only `path`"
        in message
    )
    assert parse({**source, "path": str(tmp_path)})
    assert parse({**source, "path": str(tmp_path.parent)})
    assert parse({**source, "name": "owner/name", "path": "constraints.txt"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_column": "label"}, "label_column: 'label' is refused: is for images: name their column in `image_col"),
        ({"mode": "RGB"}, "mode: 'RGB' is refused: is for images"),
        (
            {"image_column": "image", "columns": ["body"]},
            "columns: ['body'] is refused: is for text, and with `image_column`",
        ),
        ({"image_column": "image", "empty_documents": "keep"}, "empty_documents: 'keep' is refused: is for text"),
    ],
)
def test_a_hub_source_has_text_or_images(settings, message):
    source = {"kind": "huggingface", "name": "owner/name", "path": "constraints.txt"}
    assert f"sources.notes.{message}" in error_of({**source, **settings})


@pytest.mark.parametrize("labels", ["train-labels", {"train": "train-labels", "validation": "train-labels"}])
def test_labels_of_other_splits_than_the_images_are_refused(labels):
    source = {"kind": "mnist_idx", "path": "my", "images": {"train": "train-images"}, "labels": labels}
    message = error_of(source)
    assert "sources.notes.labels: " in message
    assert "`images` and `labels` must name the same splits" in message


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("*.csv", ".csv"), ("a.CSV.GZ", ".csv"), ("a.tar.zst", ".tar"), ("a.tgz", ".tar"), ("a.gz", ""), ("a", "")],
)
def test_the_ending_of_a_name_is_that_of_what_is_packed(name, suffix):
    assert ending(name) == suffix
