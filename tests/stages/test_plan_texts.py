"""The sizes in a plan of the user's text files: what the stages then leave behind, for each kind of file."""

import bz2
import csv
import gzip
import json
import lzma
import random
import re
from pydoc_data.topics import topics

import pyarrow
import pytest

from mdpipe.commands import plan_texts
from mdpipe.commands.plan import Plan, describe
from mdpipe.commands.plan_sizes import folder_size
from mdpipe.commands.plan_texts import text_sizes
from mdpipe.data.sources.download import destination
from mdpipe.params import parse_params
from mdpipe.params.sources import TextSource
from mdpipe.pipeline import paths
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from tests.stages.planning import rows_of, with_source

MANUAL = "\n".join(topics[name] for name in sorted(topics)).replace("--", "\u2014").replace("*", "\u00e9")
"""English with line breaks, quotation marks and some letters that are not ASCII."""


def passages(count, shortest, longest):
    """Yield `count` passages of the manual of different lengths; later ones are longer, as in a sorted file."""
    lengths = random.Random(0)
    for number in range(count):
        bound = shortest + (longest - shortest) * (1 + number) // count
        start = lengths.randrange(len(MANUAL) - longest)
        yield f"{number} {MANUAL[start : start + lengths.randint(shortest, bound)].strip()}"


def json_lines(count, shortest, longest, **others):
    """Return JSON lines of passages, next to other fields."""
    rows = enumerate(passages(count, shortest, longest))
    return "".join(json.dumps({"id": number, "text": text, **others}) + "\n" for number, text in rows).encode()


def table(path, count, shortest, longest, columns=("title", "text")):
    """Write a CSV file of passages, whose titles are their first ten words, and return the bytes."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *columns, "source"])
        for number, text in enumerate(passages(count, shortest, longest)):
            title = " ".join(text.split()[:10])
            writer.writerow([number, *(text if column == "text" else title for column in columns), "a, b"])
    return path.read_bytes()


def lines(count, shortest, longest):
    """Return a text with a passage in each line."""
    return "".join(re.sub(r"\s+", " ", text) + "\n" for text in passages(count, shortest, longest)).encode()


def short_json_lines(folder):
    (folder / "short.jsonl").write_bytes(json_lines(12_000, 10, 100, kind="note", score=0.25))
    return {"kind": "jsonl", "path": "short.jsonl"}


def long_json_lines(folder):
    content = json_lines(2_000, 200, 6_000, url="https://example.org/a/b", tags=["a", "b"])
    (folder / "long.jsonl").write_bytes(content)
    return {"kind": "jsonl", "path": "long.jsonl"}


def packed_json_lines(folder):
    (folder / "texts").mkdir()
    for name, count in (("a", 2_000), ("b", 5_000)):
        (folder / f"texts/{name}.jsonl.gz").write_bytes(gzip.compress(json_lines(count, 50, 300)))
    return {"kind": "jsonl", "path": "texts", "pattern": "*.jsonl.gz"}


def quoted_csv(folder):
    table(folder / "quoted.csv", 2_000, 100, 4_000)
    return {"kind": "csv", "path": "quoted.csv"}


def csv_of_two_columns(folder):
    table(folder / "two.csv", 5_000, 20, 200)
    return {"kind": "csv", "path": "two.csv", "columns": ["title", "text"]}


def packed_csv(folder):
    (folder / "packed.csv.xz").write_bytes(lzma.compress(table(folder / "plain.csv", 5_000, 20, 300), preset=1))
    return {"kind": "csv", "path": "packed.csv.xz"}


def utf_16_csv(folder):
    content = table(folder / "plain.csv", 5_000, 20, 300).decode()
    (folder / "wide.csv").write_text(content, encoding="utf-16", newline="")
    return {"kind": "csv", "path": "wide.csv", "encoding": "utf-16"}


def short_lines(folder):
    (folder / "lines.txt").write_bytes(lines(12_000, 10, 60))
    return {"kind": "text", "path": "lines.txt", "sample_by": "line"}


def long_lines(folder):
    (folder / "lines.txt").write_bytes(lines(2_000, 500, 2_500))
    return {"kind": "text", "path": "lines.txt", "sample_by": "line"}


def packed_lines(folder):
    (folder / "lines.txt.gz").write_bytes(gzip.compress(lines(12_000, 10, 200)))
    return {"kind": "text", "path": "lines.txt.gz", "sample_by": "line"}


def documents(folder):
    (folder / "texts/of/mine").mkdir(parents=True)
    for number, text in enumerate(passages(2_000, 50, 500)):
        (folder / f"texts/of/mine/{number:04}.txt").write_text(text)
    return {"kind": "text", "path": "texts"}


KINDS = {
    short_json_lines: "text8",
    long_json_lines: "text8",
    packed_json_lines: "bytes",
    quoted_csv: "text8",
    csv_of_two_columns: "bytes",
    packed_csv: "text8",
    utf_16_csv: "text8",
    short_lines: "text8",
    long_lines: "bytes",
    packed_lines: "text8",
    documents: "text8",
}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder without data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few_bytes(monkeypatch):
    """Plans that read less of a file, so that files can be small here."""
    monkeypatch.setattr(plan_texts, "SAMPLED_BYTES", 2**18)
    monkeypatch.setattr(plan_texts, "BLOCK", 2**13)


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
def test_a_compressed_file_is_estimated_from_its_beginning(empty, few_bytes, monkeypatch, suffix):
    """Within a quarter: only a part of it is unpacked."""
    monkeypatch.setattr(plan_texts, "UNPACKED_BYTES", 2**21)
    content = lines(60_000, 60, 61)
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    packed = packers[suffix](content) if suffix in packers else pyarrow.compress(content, "zstd", asbytes=True)
    (empty / f"lines.txt{suffix}").write_bytes(packed)
    params = with_files({"kind": "text", "path": f"lines.txt{suffix}", "sample_by": "line"})
    planned = rows_of(params)["download@pydantic_docs"].disk.value
    assert "sources.pydantic_docs: estimated from" in describe(params, 0.4, 989)
    download(params, "pydantic_docs")
    assert planned == pytest.approx(folder_size(paths.raw("pydantic_docs")), rel=0.25)


def test_files_that_are_read_as_a_whole_have_no_note(empty):
    (empty / "few.txt").write_bytes(lines(2_000, 10, 60))
    printed = describe(with_files({"kind": "text", "path": "few.txt", "sample_by": "line"}), 0.4, 989)
    assert "estimated from" not in printed


def test_a_bounded_part_of_a_large_file_is_read(empty):
    """Of 64 MB of lines: as many as a plan reads of any file, from all over it."""
    line = b"a line of text that is the same everywhere\n"
    (empty / "large.txt").write_bytes(line * (2**26 // len(line)))
    size = text_sizes(TextSource(path="large.txt", sample_by="line"))[None]
    assert 0 < size.size - size.unread <= 1.1 * plan_texts.SAMPLED_BYTES
    assert size.documents == pytest.approx(2**26 // len(line), rel=0.01)


def test_the_size_of_a_url_is_unknown_until_it_is_downloaded(empty):
    source = {"kind": "url", "url": "https://example.org/texts.jsonl", "field": "text", "path": "few.txt"}
    params = with_files(source)
    row = rows_of(params)["download@pydantic_docs"]
    assert row.download.is_unknown and row.disk.is_unknown
    assert "sources.pydantic_docs: the size of what is at a URL is unknown" in describe(params, 0.4, 989)
    file = destination(source["url"], paths.DOWNLOADS)
    file.parent.mkdir(parents=True)
    file.write_bytes(json_lines(3_000, 10, 100))
    planned = rows_of(params)
    download(params, "pydantic_docs")
    there = folder_size(paths.raw("pydantic_docs"))
    assert planned["download@pydantic_docs"].disk.value == pytest.approx(there, rel=0.1)
    assert planned["download@pydantic_docs"].download.value == 0


@pytest.mark.parametrize("splits", [{"validation": {"last_documents": 500}}, {"validation": 0.2}])
def test_splits_have_the_documents_and_tokens_planned(empty, splits):
    params = parse_params(with_source(short_lines(empty), splits={**splits, "test": 0.1}))
    data = Plan.of(params).datasets["docs_chars"]
    download(params, "pydantic_docs")
    fit_tokenizer(params, "docs_chars")
    encode(params, "docs_chars")
    header = json.loads((paths.encoded("docs_chars") / "dataset.json").read_text())
    assert data.tokens["train"].value == pytest.approx(header["splits"]["train"]["tokens"], rel=0.1)


def test_files_that_cannot_be_read_are_named(empty):
    (empty / "broken.jsonl").write_text("no JSON\n")
    printed = describe(with_files({"kind": "jsonl", "path": "broken.jsonl"}), 0.4, 989)
    assert "sources.pydantic_docs: its files have an unknown size" in printed
