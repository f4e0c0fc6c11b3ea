"""The sizes in a plan of the user's own files, by one rule, next to what the stages then leave behind."""

import csv
import gzip
import json
import math
import random
import re
from pydoc_data.topics import topics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdpipe.commands.plan import Plan, describe
from mdpipe.data.artifacts.files import folder_size
from mdpipe.params import parse_params
from mdpipe.pipeline import paths
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from tests.stages.plan_rows import GPT2, rows_of, with_source

MANUAL = "\n".join(topics[name] for name in sorted(topics)).replace("--", "\u2014").replace("*", "\u00e9")
"""English with line breaks, quotation marks and some letters that are not ASCII."""


def passages(count, longest):
    """Yield `count` passages of the manual of different lengths."""
    lengths = random.Random(0)
    for number in range(count):
        start = lengths.randrange(len(MANUAL) - longest)
        yield f"{number} {MANUAL[start : start + lengths.randint(longest // 10, longest)].strip()}"


def json_lines(folder):
    rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in passages(500, 1_000))
    (folder / "texts.jsonl").write_text("".join(rows))
    return {"kind": "jsonl", "path": "texts.jsonl"}


def quoted_csv(folder):
    with (folder / "quoted.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in passages(300, 2_000))])
    return {"kind": "csv", "path": "quoted.csv"}


def long_lines(folder):
    (folder / "lines.txt").write_text("".join(re.sub(r"\s+", " ", text) + "\n" for text in passages(300, 2_500)))
    return {"kind": "text", "path": "lines.txt", "sample_by": "line"}


def documents(folder):
    (folder / "texts/of/mine").mkdir(parents=True)
    for number, text in enumerate(passages(200, 2_000)):
        (folder / f"texts/of/mine/{number:04}.txt").write_text(text)
    return {"kind": "text", "path": "texts"}


KINDS = (json_lines, quoted_csv, long_lines, documents)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder without data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_files(source, **dataset):
    """Return the params of a source and a dataset of it; blank documents are left out."""
    return parse_params(with_source(source | {"empty_documents": "drop"}, **dataset))


def make(params):
    """Run the stages of the dataset, and return the tokens of its splits."""
    download(params, "pydantic_docs")
    fit_tokenizer(params, "docs_chars")
    encode(params, "docs_chars")
    header = json.loads((paths.encoded("docs_chars") / "dataset.json").read_text())
    return {split: counts["tokens"] for split, counts in header["splits"].items()}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_english_is_within_a_fifth_of_what_is_planned(empty, kind):
    splits = {key: {"last_characters": 1000} for key in ("validation", "test")}
    params = with_files(kind(empty), tokenizer="bytes", splits=splits)
    rows = rows_of(params)
    tokens = sum(make(params).values())
    assert rows["encode@docs_chars"].is_estimate and rows["download@pydantic_docs"].is_estimate
    for planned, there in (
        (rows["encode@docs_chars"].tokens, tokens),
        (rows["encode@docs_chars"].disk, folder_size(paths.encoded("docs_chars"))),
        (rows["download@pydantic_docs"].disk, folder_size(paths.raw("pydantic_docs"))),
    ):
        assert planned == pytest.approx(there, rel=0.2)
    assert rows_of(params)["encode@docs_chars"].tokens == tokens


def test_other_columns_and_alphabets_are_counted_too(empty):
    (empty / "wide.jsonl").write_text(json.dumps({"text": "\u65e5\u672c" * 50, "other": "x" * 300}) + "\n")
    params = with_files({"kind": "jsonl", "path": "wide.jsonl"})
    assert Plan(params).sources["pydantic_docs"].amounts == {None: (empty / "wide.jsonl").stat().st_size}


def test_splits_of_ones_own_files_are_as_long_as_they_are_large(empty):
    (empty / "texts").mkdir()
    for name in ("train-a", "train-b", "test"):
        (empty / f"texts/{name}.txt").write_text("x" * 43_000)
    source = {"kind": "text", "path": "texts", "pattern": {"train": "train-*.txt", "test": "test.txt"}}
    content = with_source(source, splits={"validation": 0.1, "test": "test"})
    content["datasets"]["docs_subwords"]["tokenizer"] = GPT2
    rows = rows_of(content)
    assert rows["evaluate@chars_md4"].tokens == 43_000
    assert rows["encode@docs_chars"].tokens == 129_000
    # Without a split of its own named, only what is called train is used.
    assert rows["encode@docs_subwords"].tokens == pytest.approx(86_000 / 4.3)
    assert rows["download@pydantic_docs"].download == 0


def test_tokens_of_raw_data_are_counted_by_its_documents(empty):
    """Before a dataset is encoded, its splits in documents and its ends of texts are known from data/raw."""
    splits = {"validation": {"last_documents": 50}, "test": 0.1}
    params = with_files(long_lines(empty), splits=splits, tokenizer="bytes")
    assert math.isnan(Plan(params).datasets["docs_chars"].tokens["validation"])
    download(params, "pydantic_docs")
    planned = Plan(params).datasets["docs_chars"].tokens
    assert planned == pytest.approx(make(params), rel=0.2)


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", "no JSON\n"), ("a.parquet", "PAR1")])
def test_files_that_cannot_be_read_are_named(empty, name, content):
    """With the message of the reader, which would come after the download."""
    (empty / name).write_text(content)
    kind = "parquet" if name == "a.parquet" else "jsonl"
    printed = " ".join(describe(with_files({"kind": kind, "path": name}), 0.4, 989, 50).split())
    assert f"sources.pydantic_docs: {name}" in printed


def test_files_that_are_packed_are_unknown_before_the_download(empty):
    (empty / "a.txt.gz").write_bytes(gzip.compress(MANUAL.encode()))
    pq.write_table(pa.table({"text": ["a text"]}), empty / "a.parquet")
    for source in ({"kind": "text", "path": "a.txt.gz"}, {"kind": "parquet", "path": "a.parquet"}):
        assert math.isnan(rows_of(with_files(source))["encode@docs_chars"].tokens)


def test_tokens_of_unfitted_subwords_are_unknown(empty):
    """They depend on the vocabulary, from 1.9 characters at 512 tokens to 4 at 8,192."""
    (empty / "a.txt").write_text(MANUAL)
    tokenizer = {"kind": "sentencepiece", "vocab_size": 512, "model_type": "bpe"}
    rows = rows_of(parse_params(with_source({"kind": "text", "path": "a.txt"}, tokenizer=tokenizer)))
    assert math.isnan(rows["encode@docs_chars"].tokens) and not math.isnan(rows["train@chars_md4"].flops)
