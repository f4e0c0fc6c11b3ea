"""The sizes in a plan of the user's own files: what the stages then leave behind, for each kind of file."""

import bz2
import csv
import gzip
import json
import lzma
import random
import re
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mdpipe.commands import plan_sources
from mdpipe.commands.plan import Plan, describe
from mdpipe.data.artifacts.files import folder_size
from mdpipe.data.sources.download import destination
from mdpipe.data.sources.files import find_files
from mdpipe.params import parse_params
from mdpipe.params.sources import TextSource
from mdpipe.pipeline import paths
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from tests.stages.planning import rows_of, smoke, with_source

MANUAL = "\n".join(topics[name] for name in sorted(topics)).replace("--", "\u2014").replace("*", "\u00e9")
"""English with line breaks, quotation marks and some letters that are not ASCII."""


def passages(count, longest):
    """Yield `count` passages of the manual of different lengths."""
    lengths = random.Random(0)
    for number in range(count):
        start = lengths.randrange(len(MANUAL) - longest)
        yield f"{number} {MANUAL[start : start + lengths.randint(longest // 10, longest)].strip()}"


def json_lines(count, longest):
    """Return JSON lines of passages, next to another field."""
    rows = enumerate(passages(count, longest))
    return "".join(json.dumps({"url": f"example.org/{number}", "text": text}) + "\n" for number, text in rows).encode()


def table(path, count, longest, encoding="utf-8"):
    """Write a CSV file of passages, whose titles are their first ten words, and return the bytes."""
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(["title", "text", "source"])
        writer.writerows([" ".join(text.split()[:10]), text, "a, b"] for text in passages(count, longest))
    return path.read_bytes()


def lines(count, longest):
    """Return a text with a passage in each line."""
    return "".join(re.sub(r"\s+", " ", text) + "\n" for text in passages(count, longest)).encode()


def short_json_lines(folder):
    (folder / "short.jsonl").write_bytes(json_lines(12_000, 100))
    return {"kind": "jsonl", "path": "short.jsonl"}


def packed_json_lines(folder):
    (folder / "texts").mkdir()
    for name, count in (("a", 2_000), ("b", 5_000)):
        (folder / f"texts/{name}.jsonl.gz").write_bytes(gzip.compress(json_lines(count, 300)))
    return {"kind": "jsonl", "path": "texts", "pattern": "*.jsonl.gz"}


def quoted_csv(folder):
    table(folder / "quoted.csv", 2_000, 4_000)
    return {"kind": "csv", "path": "quoted.csv"}


def csv_of_two_columns(folder):
    table(folder / "two.csv", 5_000, 200)
    return {"kind": "csv", "path": "two.csv", "columns": ["title", "text"]}


def utf_16_csv(folder):
    table(folder / "wide.csv", 5_000, 300, encoding="utf-16")
    return {"kind": "csv", "path": "wide.csv", "encoding": "utf-16"}


def long_lines(folder):
    (folder / "lines.txt").write_bytes(lines(2_000, 2_500))
    return {"kind": "text", "path": "lines.txt", "sample_by": "line"}


def one_line(folder):
    for number in range(30):
        (folder / f"line-{number}.txt").write_text(f"{number}" + "\u65e5\u672c" * 10_000)
    return {"kind": "text", "path": ".", "pattern": "line-*.txt"}


def documents(folder):
    (folder / "texts/of/mine").mkdir(parents=True)
    for number, text in enumerate(passages(2_000, 500)):
        (folder / f"texts/of/mine/{number:04}.txt").write_text(text)
    return {"kind": "text", "path": "texts"}


def parquet(folder):
    for name, count in (("a", 3_000), ("b", 600)):
        pq.write_table(pa.table({"text": list(passages(count, 500))}), folder / f"{name}.parquet", row_group_size=700)
    return {"kind": "parquet", "path": ".", "pattern": "*.parquet"}


def arrow(folder):
    texts = pa.table({"text": list(passages(3_000, 500))})
    with pa.OSFile(str(folder / "texts.arrow"), "wb") as file, pa.ipc.new_file(file, texts.schema) as writer:
        writer.write_table(texts, max_chunksize=500)
    return {"kind": "parquet", "path": "texts.arrow"}


KINDS = {
    short_json_lines: "text8",
    packed_json_lines: "bytes",
    quoted_csv: "text8",
    csv_of_two_columns: "bytes",
    utf_16_csv: "text8",
    long_lines: "bytes",
    one_line: "bytes",
    documents: "text8",
    parquet: "text8",
    arrow: "bytes",
}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder without data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few_bytes(monkeypatch):
    """Plans that read less of a file, so that files can be small here."""
    monkeypatch.setattr(plan_sources, "SAMPLED_BYTES", 2**18)


def with_files(source, tokenizer="text8"):
    """Return the params of a source and a dataset of it; blank documents are left out."""
    return parse_params(with_source(source | {"empty_documents": "drop"}, tokenizer=tokenizer))


def tokens_there():
    """Return the tokens of all splits of the dataset."""
    header = json.loads((paths.encoded("docs_chars") / "dataset.json").read_text())
    return sum(split["tokens"] for split in header["splits"].values())


@pytest.mark.parametrize(("kind", "tokenizer"), KINDS.items(), ids=[kind.__name__ for kind in KINDS])
def test_stages_leave_what_is_planned_of_text_files(empty, few_bytes, kind, tokenizer):
    """Within a tenth, though only part of each file is read."""
    params = with_files(kind(empty), tokenizer)
    rows = rows_of(params)
    download(params, "pydantic_docs")
    fit_tokenizer(params, "docs_chars")
    encode(params, "docs_chars")
    encoded = rows["encode@docs_chars"]
    assert rows["download@pydantic_docs"].disk.value == pytest.approx(folder_size(paths.raw("pydantic_docs")), rel=0.1)
    assert encoded.tokens.value == pytest.approx(tokens_there(), rel=0.1) and encoded.tokens.is_guess
    assert encoded.disk.value == pytest.approx(folder_size(paths.encoded("docs_chars")), rel=0.1)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_is_estimated_from_its_beginning(empty, few_bytes, suffix):
    """Within a third, for text that repeats itself only as English does."""
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    pack = packers.get(suffix, lambda content: pa.compress(content, "zstd", asbytes=True))
    (empty / f"manual.txt{suffix}").write_bytes(pack(re.sub(r"\n+", "\n", MANUAL).encode()))
    params = with_files({"kind": "text", "path": f"manual.txt{suffix}", "sample_by": "line"})
    planned = rows_of(params)["download@pydantic_docs"].disk.value
    assert "sources.pydantic_docs: estimated from" in describe(params, 0.4, 989)
    download(params, "pydantic_docs")
    assert planned == pytest.approx(folder_size(paths.raw("pydantic_docs")), rel=0.33)


def test_a_small_compressed_file_is_read_as_a_whole(empty):
    (empty / "lines.txt.bz2").write_bytes(bz2.compress(lines(2_000, 60)))
    params = with_files({"kind": "text", "path": "lines.txt.bz2", "sample_by": "line"})
    planned = rows_of(params)["download@pydantic_docs"].disk.value
    download(params, "pydantic_docs")
    assert planned == pytest.approx(folder_size(paths.raw("pydantic_docs")), rel=0.02)


def test_files_that_are_read_as_a_whole_have_no_note(empty):
    (empty / "few.txt").write_bytes(lines(2_000, 60))
    printed = describe(with_files({"kind": "text", "path": "few.txt", "sample_by": "line"}), 0.4, 989)
    assert "estimated from" not in printed


def test_a_bounded_part_of_a_large_file_is_read(empty):
    """Of 64 MB of lines: as many as a plan reads of any file."""
    line = b"a line of text that is the same everywhere\n"
    (empty / "large.txt").write_bytes(line * (2**26 // len(line)))
    documents, [factor] = plan_sources.read_sample(
        TextSource(path="large.txt", sample_by="line"), find_files(empty / "large.txt", "*")
    )
    assert 0 < len(documents) * len(line) <= 1.1 * plan_sources.SAMPLED_BYTES
    assert len(documents) * factor == pytest.approx(2**26 // len(line), rel=0.01)


def test_large_files_are_among_those_that_are_read(empty):
    for number in range(200):
        (empty / f"{number:03}.txt").write_text("a\n" * (100_000 if number == 150 else 1))
    files = find_files(empty, "*.txt")
    documents, factors = plan_sources.read_sample(TextSource(path=".", sample_by="line"), files)
    assert {document.name.partition(":")[0] for document in documents} == {"150.txt"}
    assert sum(factors) * len(documents) == pytest.approx(100_199, rel=0.01)


def test_the_size_of_a_url_is_unknown_until_it_is_downloaded(empty):
    source = {"kind": "url", "url": "https://example.org/texts.jsonl", "columns": ["text"], "path": "few.txt"}
    params = with_files(source)
    row = rows_of(params)["download@pydantic_docs"]
    assert row.download.is_unknown and row.disk.is_unknown
    assert "sources.pydantic_docs: the size of what is at a URL is unknown" in describe(params, 0.4, 989)
    file = destination(source["url"], paths.DOWNLOADS)
    file.parent.mkdir(parents=True)
    file.write_bytes(json_lines(3_000, 100))
    planned = rows_of(params)
    download(params, "pydantic_docs")
    there = folder_size(paths.raw("pydantic_docs"))
    assert planned["download@pydantic_docs"].disk.value == pytest.approx(there, rel=0.1)
    assert planned["download@pydantic_docs"].download.value == 0


@pytest.mark.parametrize("splits", [{"validation": {"last_documents": 500}}, {"validation": 0.2}])
def test_splits_have_the_documents_and_tokens_planned(empty, splits):
    params = parse_params(with_source(long_lines(empty), splits={**splits, "test": 0.1}))
    data = Plan.of(params).datasets["docs_chars"]
    download(params, "pydantic_docs")
    fit_tokenizer(params, "docs_chars")
    encode(params, "docs_chars")
    header = json.loads((paths.encoded("docs_chars") / "dataset.json").read_text())
    assert data.tokens["train"].value == pytest.approx(header["splits"]["train"]["tokens"], rel=0.1)


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", "no JSON\n"), ("a.parquet", "PAR1")])
def test_files_that_cannot_be_read_are_named(empty, name, content):
    """With the message of the reader, which would come after the download."""
    (empty / name).write_text(content)
    kind = "parquet" if name == "a.parquet" else "jsonl"
    printed = " ".join(describe(with_files({"kind": kind, "path": name}), 0.4, 989).split())
    assert f"sources.pydantic_docs has an unknown size: {name}" in printed


def test_images_in_files_and_tables_are_counted(empty):
    content = smoke()
    content["runs"]["digits"] |= {"class_cond": None}
    content["runs"]["digits"]["sample"] |= {"guidance_scale": None}
    (empty / "images").mkdir()
    for number in range(40):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(empty / f"images/{number}.png")
    images = [(empty / f"images/{number}.png").read_bytes() for number in range(40)]
    pq.write_table(pa.table({"image": images}), empty / "images.parquet", row_group_size=9)
    content["datasets"]["digits"] |= {"tokenizer": "pixels", "image_size": 8, "stride": None}
    for source in ({"kind": "image_folder", "path": "images"}, {"kind": "parquet_images", "path": "images.parquet"}):
        content["sources"]["digits"] = source
        rows = rows_of(content)
        assert rows["encode@digits"].tokens.value == 40 * 8 * 8 * 3
        assert not rows["train@digits"].flops.is_guess


def test_tokens_of_unfitted_subwords_depend_on_the_vocabulary(empty):
    (empty / "a.txt").write_text(MANUAL)
    tokens = {}
    for vocab_size in (512, 8192):
        tokenizer = {"kind": "sentencepiece", "vocab_size": vocab_size, "model_type": "bpe"}
        params = parse_params(with_source({"kind": "text", "path": "a.txt"}, tokenizer=tokenizer))
        tokens[vocab_size] = rows_of(params)["encode@docs_chars"].tokens.value
    assert len(MANUAL) / tokens[512] == pytest.approx(1.9, rel=0.1)
    assert len(MANUAL) / tokens[8192] == pytest.approx(4.0, rel=0.1)
