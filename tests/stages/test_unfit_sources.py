"""`mdpipe check` and both engines refuse settings of a source that do not fit its files, before anything runs."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from mdpipe.cli import app
from mdpipe.console import full_keys, with_full_keys
from mdpipe.data.sources import CHECKED_FILES, open_source
from mdpipe.data.sources.files import open_decompressed
from mdpipe.params import Params, parse_params
from mdpipe.pipeline.preflight import unfit_sources
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from mdpipe.stages.resolve import resolve
from tests.stages.plan_rows import smoke
from workflow.engine import require_fitting_sources


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """A file of every local kind."""
    monkeypatch.chdir(tmp_path)
    Path("constraints.txt").touch()
    for folder in ("my/train/cat", "my/more", "empty"):
        Path(folder).mkdir(parents=True)
    Path("my/a.csv").write_text("title,body\nA,one\n")
    Path("my/a.jsonl").write_text("\n" + json.dumps({"title": "A", "body": "one"}) + "\n{broken")
    pq.write_table(pa.table({"title": ["A"], "body": ["one"]}), "my/a.parquet")
    with pa.ipc.new_stream("my/a.arrow", (table := pa.table({"picture": [b""], "kind": [0]})).schema) as stream:
        stream.write_table(table)
    np.savez("my/a.npz", pictures=np.zeros((2, 3), np.uint8), kinds=np.zeros(2, np.int64))
    np.save("my/a.npy", np.zeros((2, 3, 3), np.uint8))
    Image.new("L", (3, 3)).save("my/train/cat/a.png")


def params_with(source: dict[str, Any]) -> Params:
    return parse_params({**smoke(), "sources": {**smoke()["sources"], "mine": source}})


def refusal(**source: Any) -> str:
    """The line about a source, which has the message that `download` ends with."""
    params = params_with({"path": "my", **source})
    [line] = unfit_sources(params, params.sources)
    with pytest.raises(ValueError) as error:
        open_source(params.sources["mine"], Path("downloads"))
    assert line == f"sources.mine: {with_full_keys(str(error.value), params, {'sources': 'mine'})}"
    return line


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"kind": "csv"},
            "the header (the first row, or `sources.mine.header`) of my/a.csv has no column 'text', only",
        ),
        ({"kind": "csv", "columns": ["body", "x"]}, "my/a.csv has no column 'x', only 'title', 'body'; correct "),
        ({"kind": "jsonl"}, "my/a.jsonl:2: the line has no field 'text', only 'title', 'body'; correct `"),
        ({"kind": "jsonl", "columns": ["body", "x"]}, "the line has no field 'x', only 'title', 'body'; correct `"),
        (
            {"kind": "parquet"},
            "my/a.parquet has no column 'text', only 'title', 'body'; correct `sources.mine.columns`",
        ),
        (
            {"kind": "parquet_images", "pattern": "*.arrow"},
            "my/a.arrow has no column 'image', only 'picture', 'kind'; correct `sources.mine.image_column` in params",
        ),
        (
            {"kind": "parquet_images", "pattern": "*.arrow", "image_column": "picture", "label_column": "label"},
            "my/a.arrow has no column 'label', only 'picture', 'kind'; correct `sources.mine.label_column` in params",
        ),
        (
            {"kind": "npz_flat", "shape": [1, 1, 3]},
            "my/a.npz has no array 'data', only 'pictures', 'kinds'; correct `sources.mine.field` in params.yaml",
        ),
        (
            {"kind": "npz_flat", "shape": [1, 1, 3], "field": "pictures", "labels": {"num_classes": 2}},
            "my/a.npz has no array 'labels', only 'pictures', 'kinds'; correct `sources.mine.labels` in params.yaml",
        ),
        ({"kind": "npy", "path": "my/a.npz"}, "my/a.npz has no array 'images', only 'pictures', 'kinds'; correct `"),
        ({"kind": "npy", "path": "my/a.npy", "labels": "y"}, "my/a.npy has one array and no labels = 'y'; save"),
        ({"kind": "npy"}, "my is not a file; correct `sources.mine.path` in params.yaml"),
        ({"kind": "mnist_idx", "images": "x"}, "my/x does not exist; correct `sources.mine.path`, "),
        ({"kind": "image_folder", "labels": "folder", "pattern": "**/*.png"}, "train in my would be the classes, but"),
        (
            {"kind": "image_folder", "labels": "folder", "pattern": "*.npy"},
            "a.npy in my is in no sub-folder that could be",
        ),
        ({"kind": "text"}, "no file in the folder my, which has 'a.arrow', 'a.csv', 'a.jsonl', 'a.npy', 'a.npz', 'a."),
        (
            {"kind": "text", "path": "empty"},
            "the folder empty, which is empty, fits '**/*.txt'; correct `sources.mine.",
        ),
        (
            {"kind": "image_tar"},
            "fits '**/*.tar'; correct `sources.mine.pattern` in params.yaml, or `sources.mine.path`",
        ),
        (
            {"kind": "jsonl", "columns": ["body"], "pattern": {"train": "*.jsonl", "test": "test-*.jsonl"}},
            "fits 'test-*.jsonl'; correct",
        ),
        ({"kind": "catalog", "name": "imagenet64"}, "fits 'train_64x64.tar'; correct `sources.mine."),
    ],
)
def test_what_does_not_fit_is_named_with_what_the_files_have(source, message):
    line = refusal(**source)
    assert line.startswith("sources.mine: ")
    assert message in line


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "csv", "columns": ["title", "body"]},
        {"kind": "jsonl", "columns": ["title", "body"]},
        {"kind": "parquet", "columns": ["body"]},
        {"kind": "parquet_images", "pattern": "*.arrow", "image_column": "picture", "label_column": "kind"},
        {"kind": "npy", "path": "my/a.npz", "field": "pictures", "labels": "kinds"},
        {"kind": "npy", "path": "my/a.npy"},
        {"kind": "image_folder", "pattern": "**/*.png"},
        {"kind": "text", "path": "my/a.csv"},
        {"kind": "huggingface", "name": "owner/name"},
        {"kind": "url", "url": "https://example.org/a.txt"},
        {"kind": "text", "path": "missing"},
        {"kind": "text", "path": "data/raw/digits"},
    ],
)
def test_a_source_that_fits_or_is_not_here_yet_is_not_refused(source):
    params = params_with({"path": "my", **source})
    assert list(unfit_sources(params, params.sources)) == []


def test_only_the_beginning_of_a_few_files_is_read(monkeypatch):
    for number in range(20):
        Path(f"my/more/{number:02d}.jsonl").write_text('{"text": "one"}\n' if number < 10 else "{}\n")
    opened = []

    def record(path):
        opened.append(path.name)
        return open_decompressed(path)

    monkeypatch.setattr("mdpipe.data.sources.text.open_decompressed", record)
    params = params_with({"kind": "jsonl", "path": "my/more"})
    assert list(unfit_sources(params, ["mine"])) == []
    assert opened == [f"{number:02d}.jsonl" for number in range(CHECKED_FILES)]
    with pytest.raises(ValueError, match=r"10\.jsonl:1: the line has no field 'text', only none"):
        open_source(params.sources["mine"], Path("downloads"))


def test_check_and_both_engines_say_it(caplog):
    params = params_with({"kind": "csv", "path": "my", "columns": ["x"]})
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    found = "sources.mine: the header (the first row, or `sources.mine.header`) of my/a.csv has no column 'x', only"
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 1
    assert f"mdpipe: {found}" in result.output
    resolve(params)  # The first stage that DVC runs.
    assert [message for message in caplog.messages if message.startswith(found)]
    due: Any = [SimpleNamespace(name=name) for name in ("download@digits", "download@mine", "encode@mine")]
    with pytest.raises(ValueError, match="has no column 'x'"):  # Snakemake
        require_fitting_sources(params, due)
    require_fitting_sources(params, due[:1])


def write_novels(count: int) -> str:
    """Create a folder of long files; return its path."""
    for number in range(count):
        Path(f"my/novels-{count}").mkdir(exist_ok=True)
        text = "".join(f"Chapter {chapter} of novel {number}, which goes on and on.\n" for chapter in range(4_000))
        Path(f"my/novels-{count}/{number}.txt").write_text(text)
    return f"my/novels-{count}"


def with_dataset(path: str, **settings: Any) -> Params:
    """A suite of one text data set, as params.yaml of the current folder."""
    content = {
        "sources": {"mine": {"kind": "text", "path": path}},
        "datasets": {"mine": {"source": "mine", "tokenizer": "bytes", "seq_len": 64, **settings}},
        "runs": {},
    }
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return parse_params(content)


@pytest.mark.parametrize(
    ("count", "splits"),
    [
        (1, {}),
        (2, {}),
        (1, {"validation": {"last_documents": 1}, "test": {"windows": 0.1}}),
        (3, {"test": 0.7}),
        (3, {"validation": {"last_characters": 400_000}, "test": {"last_characters": 400_000}}),
    ],
)
def test_too_few_files_for_the_splits_are_refused_as_encode_would(caplog, count, splits):
    params = with_dataset(write_novels(count), splits=splits)
    [line] = unfit_sources(params, ["mine"])
    assert "datasets.mine.splits" in line
    if count < 3:  # More files do not help against fewer characters, nor against large fractions.
        price = "(windows of one document get into different splits, so held-out bits are lower than for new documents)"
        assert f"use {{last_characters: N}}, which cuts a document, or {{windows: 0.1}} {price}" in line
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 1
    assert f"mdpipe: {line}" in result.output
    assert "datasets.mine.splits" in CliRunner().invoke(app, ["plan"]).output
    resolve(params)
    assert line in caplog.messages
    due: Any = [SimpleNamespace(name="download@mine")]
    with pytest.raises(ValueError, match=r"every split needs|nothing to train on"):
        require_fitting_sources(params, due)
    download(params, "mine")
    with pytest.raises(ValueError) as error, full_keys(params, {"datasets": "mine"}):
        fit_tokenizer(params, "mine")
        encode(params, "mine")
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("count", "splits"),
    [
        (3, {}),
        (1, {"validation": {"last_characters": 9_000}, "test": {"last_characters": 9_000}}),
        (1, {"validation": {"windows": 0.1}, "test": {"windows": 0.1}}),
        (3, {"validation": {"last_documents": 1}, "test": {"last_documents": 1}}),
    ],
)
def test_files_that_suffice_for_the_splits_are_encoded(count, splits):
    params = with_dataset(write_novels(count), splits=splits)
    assert list(unfit_sources(params, params.sources)) == []
    download(params, "mine")
    fit_tokenizer(params, "mine")
    encode(params, "mine")


def test_characters_are_only_counted_in_plain_files():
    """Of an archive, or of text that is rewritten, the number is known after reading."""
    splits = {"validation": {"last_characters": 300_000}, "test": {"last_characters": 300_000}}
    params = with_dataset(write_novels(2), splits=splits)
    assert sum(path.stat().st_size for path in Path("my/novels-2").iterdir()) < 600_000
    [line] = unfit_sources(params, ["mine"])
    assert line.startswith("datasets.mine.splits.validation: {last_characters: 300000} leaves nothing to train on")
    rewritten = params.model_dump(mode="json")
    rewritten["sources"]["mine"]["detokenizer"] = "ptb"
    assert list(unfit_sources(parse_params(rewritten), ["mine"])) == []
    text = Path("my/novels-2/0.txt")
    Path("my/novels-2/0.txt.gz").write_bytes(gzip.compress(text.read_bytes()))
    text.unlink()
    packed = params.model_dump(mode="json")
    packed["sources"]["mine"]["pattern"] = "*"
    assert list(unfit_sources(parse_params(packed), ["mine"])) == []


def test_where_a_file_has_several_documents_none_are_counted():
    path = write_novels(1)
    params = with_dataset(path)
    assert list(unfit_sources(params, ["mine"])) != []
    by_line = params.model_dump(mode="json")
    by_line["sources"]["mine"]["sample_by"] = "line"
    assert list(unfit_sources(parse_params(by_line), ["mine"])) == []


def test_a_text_at_a_url_is_one_document_and_an_image_file_one_image():
    text = {"source": "mine", "tokenizer": "bytes", "seq_len": 64}
    url = {"kind": "url", "url": "https://example.org/a.txt", "path": "constraints.txt"}
    image = {"kind": "image_folder", "path": "my", "pattern": "**/*.png"}
    for source, dataset, refused in (
        (url, text, "documents (1, where"),
        (url | {"sample_by": "line"}, text, None),
        (image, {"source": "mine", "tokenizer": "pixels", "image_size": 3}, "images or groups of them (1, where"),
    ):
        params = parse_params({"sources": {"mine": source}, "datasets": {"mine": dataset}, "runs": {}})
        found = list(unfit_sources(params, ["mine"]))
        assert len(found) == (refused is not None)
        assert all(f"`datasets.mine.splits`: the source's {refused}" in line for line in found)
