"""The sizes in a plan of the user's text files: what the stages then leave behind, for each kind of file."""

import csv
import gzip
import itertools
import json
import lzma
import random
import re
from pydoc_data.topics import topics

import pytest

from mdpipe.commands.plan_sizes import folder_size
from mdpipe.params import parse_params
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
    (folder / "short.jsonl").write_bytes(json_lines(50_000, 10, 100, kind="note", score=0.25))
    return {"kind": "jsonl", "path": "short.jsonl"}


def long_json_lines(folder):
    content = json_lines(3_000, 200, 6_000, url="https://example.org/a/b", tags=["a", "b"])
    (folder / "long.jsonl").write_bytes(content)
    return {"kind": "jsonl", "path": "long.jsonl"}


def packed_json_lines(folder):
    (folder / "texts").mkdir()
    for name, count in (("a", 2_000), ("b", 20_000)):
        (folder / f"texts/{name}.jsonl.gz").write_bytes(gzip.compress(json_lines(count, 50, 300)))
    return {"kind": "jsonl", "path": "texts", "pattern": "*.jsonl.gz"}


def quoted_csv(folder):
    table(folder / "quoted.csv", 4_000, 100, 4_000)
    return {"kind": "csv", "path": "quoted.csv"}


def csv_of_two_columns(folder):
    table(folder / "two.csv", 20_000, 20, 200)
    return {"kind": "csv", "path": "two.csv", "columns": ["title", "text"]}


def packed_csv(folder):
    (folder / "packed.csv.xz").write_bytes(lzma.compress(table(folder / "plain.csv", 20_000, 20, 300), preset=1))
    return {"kind": "csv", "path": "packed.csv.xz"}


def utf_16_csv(folder):
    content = table(folder / "plain.csv", 5_000, 20, 300).decode()
    (folder / "wide.csv").write_text(content, encoding="utf-16", newline="")
    return {"kind": "csv", "path": "wide.csv", "encoding": "utf-16"}


def short_lines(folder):
    (folder / "lines.txt").write_bytes(lines(50_000, 10, 60))
    return {"kind": "text", "path": "lines.txt", "sample_by": "line"}


def long_lines(folder):
    (folder / "lines.txt").write_bytes(lines(6_000, 500, 2_500))
    return {"kind": "text", "path": "lines.txt", "sample_by": "line"}


def packed_lines(folder):
    (folder / "lines.txt.gz").write_bytes(gzip.compress(lines(50_000, 10, 200)))
    return {"kind": "text", "path": "lines.txt.gz", "sample_by": "line"}


def documents(folder):
    (folder / "texts/of/mine").mkdir(parents=True)
    for number, text in enumerate(passages(2_000, 50, 500)):
        (folder / f"texts/of/mine/{number:04}.txt").write_text(text)
    return {"kind": "text", "path": "texts"}


KINDS = (
    short_json_lines,
    long_json_lines,
    packed_json_lines,
    quoted_csv,
    csv_of_two_columns,
    packed_csv,
    utf_16_csv,
    short_lines,
    long_lines,
    packed_lines,
    documents,
)
TOKENIZERS = ("text8", "bytes")


def with_files(source, tokenizer="text8"):
    """Return the params of a source and a dataset of it; blank documents are left out."""
    return parse_params(with_source(source | {"empty_documents": "drop"}, tokenizer=tokenizer))


def tokens_there():
    """Return the tokens of all splits of the dataset."""
    header = json.loads((paths.encoded("docs_chars") / "dataset.json").read_text())
    return sum(split["tokens"] for split in header["splits"].values())
