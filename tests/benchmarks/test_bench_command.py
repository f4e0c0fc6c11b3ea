"""`mdpipe bench sample`, end to end."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from mdpipe.benchmarks.sampling import BENCHMARK
from mdpipe.benchmarks.settings import SamplingSettings
from mdpipe.cli import app

pytestmark = pytest.mark.slow

TINY = (
    "--batch 2 --length 7 --vocab-size 11 --steps 20 --steady-steps 4 --repeats 2"
    " --num-layers 1 --num-heads 2 --hidden-size 16"
)
KEYS = {setting.name for setting in fields(SamplingSettings)} | {
    "tokens_per_second",
    "times_stepwise",
    "seconds",
    "nfe",
    "flops_per_second",
    "mfu",
    "peak_mem_mib",
    "steps_measured",
}


def bench_sample(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", "sample", *TINY.split(), *arguments])


@pytest.fixture(scope="module")
def bench_output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of the command on both samplers: the files' stem, and what was printed."""
    stem = tmp_path_factory.mktemp("bench") / "sampling"
    result = bench_sample("--json", "--out", str(stem))
    assert result.exit_code == 0, result.output
    return stem, result.output


def test_json_has_the_promised_keys(bench_output):
    _, printed = bench_output
    document = json.loads(printed)
    assert {"processor", "cores", "device", "threads", "torch", "python", "commit"} <= set(document["machine"])
    assert [result["sampler"] for result in document["results"]] == ["ancestral", "ancestral_stepwise"]
    for result in document["results"]:
        assert set(result) >= KEYS


def test_speeds_are_relative_to_stepwise_at_the_same_batch(bench_output):
    exact, plain = json.loads(bench_output[1])["results"]
    assert plain["times_stepwise"] == 1
    assert exact["times_stepwise"] == exact["tokens_per_second"] / plain["tokens_per_second"]


def test_the_files_hold_what_is_printed_and_a_table_of_it(bench_output):
    stem, printed = bench_output
    assert stem.with_suffix(".json").read_text() == printed
    rows = [line for line in stem.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
    headings, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert headings == list(BENCHMARK.columns)
    assert [(row[0], row[1]) for row in rows] == [("ancestral", "2"), ("ancestral_stepwise", "2")]


def test_what_cannot_be_measured_is_refused_before_anything_runs():
    result = bench_sample("--steady-steps", "0")
    assert result.exit_code == 2 and "--steady-steps" in result.output


def test_a_wrong_sampler_is_refused_in_one_line():
    result = bench_sample("--sampler", "zigzag")
    assert result.exit_code == 1
    assert result.output.startswith("mdpipe: --sampler must be one of") and result.output.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("benchmark", ["sample", "train"])
def test_a_gpu_that_is_not_there_is_refused_in_a_line(benchmark):
    result = CliRunner().invoke(app, ["bench", benchmark, "--device", "cuda"])
    assert result.exit_code == 1
    assert result.output == "mdpipe: --device cuda: torch finds no GPU on this machine; take cpu\n"
