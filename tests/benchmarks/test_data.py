"""Made-up data, what a measurement of preparing data says of itself, and the command that makes it."""

import json
import statistics
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mdpipe.benchmarks.data import BENCHMARK, VOCABULARY, compare, hash_folder, write_text
from mdpipe.benchmarks.settings import DataSettings
from mdpipe.cli import app
from mdpipe.data.dataset import EncodedDataset

pytestmark = pytest.mark.slow

KEYS = {setting.name for setting in fields(DataSettings)} | {
    "bytes",
    "text_bytes",
    "documents",
    "shards",
    "vocab_size",
    "tokens",
    "write_seconds",
    "write_mb_per_second",
    "read_seconds",
    "read_mb_per_second",
    "read_cpu_seconds",
    "read_peak_mib",
    "read_peak_together_mib",
    "encode_seconds",
    "encode_mb_per_second",
    "tokens_per_second",
    "encode_cpu_seconds",
    "encode_peak_mib",
    "encode_peak_together_mib",
    "sha256",
    "shards_kept",
    "searches_kept",
    "again_seconds",
    "sha256_after_kill",
    "training_tokens_per_second",
    "images_per_second",
    "same_bytes",
}


def bench_data(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", "data", *arguments])


@pytest.fixture(scope="module")
def bench_output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the command with one worker, killed once; return the files' stem and the output."""
    stem = tmp_path_factory.mktemp("bench") / "data"
    done = bench_data("--size", "2", "--kill", "--json", "--out", str(stem))
    assert done.exit_code == 0, done.output
    return stem, done.stdout


@pytest.fixture(scope="module")
def results(bench_output) -> list[dict]:
    """Return the results with one worker, killed once, and with two."""
    with_two = bench_data("--size", "2", "--workers", "2", "--json")
    return [*json.loads(bench_output[1])["results"], *json.loads(with_two.stdout)["results"]]


def test_json_has_the_promised_keys(bench_output, results):
    assert {"processor", "cores", "torch", "python", "commit"} <= set(json.loads(bench_output[1])["machine"])
    assert [result["workers"] for result in results] == [1, 2]
    for result in results:
        assert set(result) >= KEYS


def test_numbers_are_positive_and_agree_with_each_other(results):
    for result in results:
        numbers = {key: value for key, value in result.items() if isinstance(value, float)}
        assert len(numbers) == 25 + result["kill"] and all(value > 0 for value in numbers.values()), numbers
        for step, what in (("write", "bytes"), ("read", "bytes"), ("encode", "text_bytes")):
            assert result[f"{step}_mb_per_second"] * result[f"{step}_seconds"] == pytest.approx(result[what] / 1e6)
        assert result["tokens_per_second"] * result["encode_seconds"] == pytest.approx(result["tokens"])
        assert result["tokens"] == result["text_bytes"] + result["documents"]
        assert 2e6 <= result["bytes"] < 2.2e6
        assert result["read_peak_mib"] <= result["read_peak_together_mib"]
        assert result["encode_peak_mib"] <= result["encode_peak_together_mib"]


def test_workers_change_the_time_and_not_the_bytes(results):
    one, two = results
    assert one["sha256"] == two["sha256"]
    assert one["bytes"] == two["bytes"] and one["tokens"] == two["tokens"]


def test_encoding_that_was_killed_writes_the_same_bytes(results):
    killed, whole = results
    assert killed["sha256_after_kill"] == killed["sha256"] and killed["same_bytes"] is True
    assert 0 <= killed["searches_kept"] <= killed["shards_kept"] <= killed["shards"]
    assert whole["sha256_after_kill"] is None


def test_the_files_hold_what_is_printed_and_a_table_of_it(bench_output):
    stem, printed = bench_output
    assert stem.with_suffix(".json").read_text() == printed
    rows = [line for line in stem.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
    headings, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert headings == list(BENCHMARK.columns)
    assert [row[:3] for row in rows] == [["bytes", "2", "1"]]


def test_files_stay_in_the_named_folder_and_are_never_mixed(tmp_path):
    arguments = ("--size", "1", "--tokenizer", "text8", "--folder", str(tmp_path))
    assert bench_data(*arguments).exit_code == 0
    train = EncodedDataset.open(tmp_path / "text8-1-1" / "encoded", "train")
    assert train.tokenizer == "text8" and train.seq_len == 1024
    again = bench_data(*arguments)
    assert again.exit_code == 1 and "1 MB by text8 (workers: 1) was not measured: " in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokenizer", "runes"), "--tokenizer must be one of bytes, text8, sentencepiece, gpt2, not 'runes'"),
        (("--tokenizer", "gpt2"), "--tokenizer gpt2 needs --path, a folder with GPT-2's vocab.json and merges.txt"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(arguments, message):
    done = bench_data(*arguments)
    assert done.exit_code == 1
    assert done.output == f"mdpipe: {message}\n"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("text") / "text"
    write_text(directory, 3_000_000, seed=0)
    return directory


def test_text_is_a_function_of_the_seed(text, tmp_path):
    for seed, same in ((0, True), (1, False)):
        write_text(tmp_path / str(seed), 3_000_000, seed)
        assert (hash_folder(tmp_path / str(seed)) == hash_folder(text)) is same


def test_a_smaller_text_is_the_beginning_of_a_larger_one(text, tmp_path):
    write_text(tmp_path / "small", 1_000_000, seed=0)
    for file in text.iterdir():
        assert file.read_bytes().startswith((tmp_path / "small" / file.name).read_bytes())


def test_documents_have_a_median_of_2_kb_and_zipf_words(text):
    """Of 900 documents the median has a standard error of 4 %; of the most frequent words counts have one of 1 %."""
    lines = [line for file in text.iterdir() for line in file.read_text().splitlines()]
    documents = [json.loads(line)["text"] for line in lines]
    assert statistics.median(len(document.encode()) for document in documents) == pytest.approx(2000, rel=0.2)
    words = np.array(" ".join(documents).translate(str.maketrans(",.–\n", "    ")).split())
    counts = np.sort(np.unique_counts(words).counts)[::-1]
    expected = len(words) / np.arange(1, 11) / np.sum(1 / np.arange(1, VOCABULARY + 1))
    assert counts[:10] == pytest.approx(expected, rel=0.1)
    assert len(counts) > 20_000


def test_rows_of_one_text_and_tokenizer_are_compared():
    def row(tokenizer, sha256, after_kill=None):
        described = {"size": 3, "tokenizer": tokenizer, "path": None, "seed": 0}
        return {**described, "sha256": sha256, "sha256_after_kill": after_kill}

    rows = [
        row("bytes", "a"),
        row("text8", "b"),
        row("bytes", "a"),
        row("sentencepiece", "c", "d"),
        row("gpt2", "e", "e"),
    ]
    assert [result["same_bytes"] for result in compare(rows)] == [True, None, True, False, True]
