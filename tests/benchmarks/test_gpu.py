"""The GPU run, rehearsed on a CPU: whatever happens to a part, the others run and its measurements are kept."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from mdpipe.benchmarks import gpu, gpu_checks, training
from mdpipe.benchmarks.gpu import PARTS, Job, Part, find_failed_checks, run, summarize
from mdpipe.benchmarks.gpu_checks import CASES, TOLERANCES, compare_traces
from mdpipe.benchmarks.gpu_measurements import (
    CHUNK_BYTES,
    CHUNKED,
    NETWORKS,
    SAMPLING,
    STEP,
    grow_batches,
    measure_speed,
)
from mdpipe.benchmarks.settings import SHAPES
from mdpipe.diffusion.objectives import md4
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.networks import NetworkConfig
from tests.benchmarks import fake_part

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ABSENT = ("dvc", "snakemake", "datasets", "polars", "PIL", "sklearn", "sentencepiece", "typer")
"""Packages that no GPU run may need."""
CPU = torch.device("cpu")
TINY = {part.name: part.tiny for part in PARTS}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The documents of a tiny run where none of `ABSENT` can be imported."""
    absent, out = tmp_path_factory.mktemp("absent"), tmp_path_factory.mktemp("out")
    for name in ABSENT:
        (absent / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r})\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(absent), str(ROOT / "src")])}
    command = [
        sys.executable,
        "-m",
        "mdpipe.benchmarks.gpu",
        "--out",
        str(out),
        "--tiny",
        "--budget",
        "6000",
        "--commit",
        "abc",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (out / "summary.md").read_text()
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


def test_every_part_of_a_rehearsal_says_where_it_ran(rehearsal):
    assert list(rehearsal) and rehearsal.keys() == {part.name for part in PARTS}
    for document in rehearsal.values():
        assert document["status"] == "finished" and document["tiny"]
        assert document["machine"]["commit"] == "abc" and document["machine"]["torch"] == torch.__version__
        assert 0 < document["seconds"] <= document["limit"]


def test_a_rehearsal_compares_every_variant_of_every_check(rehearsal):
    for name in ("correctness", "parallel"):
        rows = rehearsal[name]["results"]
        compared = [row for row in rows if "gradient" in row]
        assert {row["check"] for row in compared} == set(CASES)
        assert not find_failed_checks(rehearsal[name])


class Listing(Job):
    """A job whose measurements are not made: every one has a row, and every doubled batch is faster."""

    compiler_problem = ""

    def attempt(self, labels: dict, measure: Callable[[], dict], **limits: object) -> dict:
        return {**labels, "tokens_per_second": labels.get("batch", 1), "wall_seconds": 0}


@pytest.fixture
def list_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict]]:
    """Return a function that lists the rows of a part of a full run, or of a rehearsal."""
    monkeypatch.setattr(gpu_checks, "record_trace", lambda *_: None)
    monkeypatch.setattr(gpu_checks, "init_distributed", nullcontext)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    parts = {part.name: part for part in PARTS}

    def rows(name: str, *, tiny: bool = False) -> list[dict]:
        return list(parts[name].measure(Listing(CPU, math.inf), **(TINY[name] if tiny else {})))

    return rows


MEASURED = ("correctness", "parallel", "speed", "samplers")


def kinds_of(rows: list[dict]) -> set[tuple]:
    """Return what the rows are about, without sizes."""
    first = {row["shape"]: row["batch"] for row in reversed(rows) if "shape" in row}
    names = ("check", "variant", "shape", "compile", "sampler", "dtype")
    return {
        (
            *(row.get(name) for name in names),
            row["batch"] if "sampler" in row else row.get("batch") == first.get(row.get("shape")),
            "chunk_bytes" in row,
        )
        for row in rows
    }


@pytest.mark.parametrize("part", MEASURED)
def test_a_rehearsal_has_every_kind_of_row_of_a_full_run(rehearsal, list_rows, part):
    """Samplers, number formats, strategies, eager and compiled, first and doubled batches, chunks."""
    assert kinds_of(list_rows(part)) == kinds_of(list_rows(part, tiny=True))
    assert kinds_of(list_rows(part)) <= kinds_of(rehearsal[part]["results"])


def test_a_rehearsal_trains_as_a_full_run_does():
    for shape in SHAPES.values():
        tiny = shape.shrink()
        assert (tiny.network.kind, len(tiny.shape)) == (shape.network.kind, len(shape.shape))
    changed = {"steps", "group", "warm_up", "threads"}
    full, tiny = vars(STEP), vars(TINY["speed"]["step"])
    assert {name for name in full if full[name] != tiny[name]} == changed


def test_a_rehearsal_doubles_a_batch_more_than_once(rehearsal):
    networks = TINY["speed"]["networks"]
    assert 4 in {row["batch"] / networks[row["shape"]].batch for row in rehearsal["speed"]["results"]}


@pytest.mark.parametrize("sizes", [{"networks": NETWORKS, "chunk_bytes": CHUNK_BYTES}, TINY["speed"]])
def test_head_chunks_are_smaller_and_larger_than_its_logits(sizes):
    shape = sizes["networks"][CHUNKED]
    logits = shape.batch * shape.length * shape.vocab_size * 4
    assert 10 * min(sizes["chunk_bytes"]) < logits <= max(sizes["chunk_bytes"])


@pytest.mark.parametrize("part", ["correctness", "parallel", "speed"])
def test_where_no_compiler_works_the_compiled_rows_say_so(monkeypatch, list_rows, part):
    monkeypatch.setattr(Listing, "compiler_problem", "no g++")
    monkeypatch.setattr(Listing, "attempt", Job.attempt)
    monkeypatch.setattr(gpu, "_measure", lambda _: {})
    compiled = [row for row in list_rows(part) if row.get("compile") or "compiled" in row.get("variant", "")]
    assert compiled and {row["skipped"] for row in compiled} == {"no compiler works here: no g++"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the steps are watched")
def test_waits_are_looked_for_in_every_objective(rehearsal):
    rows = [row for row in rehearsal["correctness"]["results"] if row["check"].startswith("no step waits")]
    assert {f"no step waits, {kind}" for kind in ObjectiveConfig.kinds} <= {row["check"] for row in rows}
    assert {row["skipped"] for row in rows} == {"needs a GPU"}


def test_speeds_agree_with_each_other(rehearsal):
    rows = rehearsal["speed"]["results"]
    assert {(row["shape"], row["batch"]) for row in rows} >= {(name, 4) for name in NETWORKS}
    assert [row["chunk_bytes"] for row in rows if "chunk_bytes" in row] == list(TINY["speed"]["chunk_bytes"])
    for row in rows:
        assert row["examples_per_second"] * row["seconds_per_step"] == pytest.approx(row["batch"])
        assert row["mfu"] == pytest.approx(row["flops_per_second"] / row["peak_flops"])


def test_speeds_of_samplers_agree_with_each_other(rehearsal):
    for row in rehearsal["samplers"]["results"]:
        assert row["tokens_per_second"] * row["seconds"] == pytest.approx(row["batch"] * row["length"])


def test_training_starts_at_the_uniform_bound_and_ends_below(rehearsal):
    document = rehearsal["training"]
    before, after = document["results"]
    uniform = math.log2(27)
    # All tokens cost the same, so there is no Monte Carlo error, only that of float32.
    assert before["bits_per_character"] == pytest.approx(uniform, rel=1e-6) and before["stderr_mc"] < 1e-6
    assert after["bits_per_character"] < uniform and after["stderr"] > 0
    assert 0 < after["steps"] <= before["planned_steps"]
    assert "not text8" in before["data"]
    assert "not text8" in summarize([document], PARTS[-1:])


@pytest.fixture(scope="module")
def mishaps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A run whose parts fail in every way, and then one that does not."""
    out = tmp_path_factory.mktemp("mishaps")
    ways = {"fail": 0.5, "hang": 0.1, "die": 0.5, "never": 0.5, "finish": 0.5}
    parts = [make_part(way, fraction) for way, fraction in ways.items()]
    return out, run(parts, out, budget=200, tiny=True)


def make_part(way: str, fraction: float) -> Part:
    return Part(way, getattr(fake_part, way), fraction, {"row": "{row}"}, "")


@pytest.mark.parametrize(
    ("way", "status", "error"),
    [
        ("fail", "failed", "ValueError: no"),
        ("hang", "out of time", "it was ended after 20 s"),
        ("die", "failed", "its process ended with status -11; perhaps memory ran out"),
        ("never", "failed", "its process ended with status 3; perhaps memory ran out"),
        ("finish", "finished", None),
    ],
)
def test_how_a_part_ended_is_recorded_and_the_next_one_runs(mishaps, way, status, error):
    out, is_fine = mishaps
    document = json.loads((out / f"{way}.json").read_text())
    assert (document["status"], document["error"]) == (status, error)
    assert document["results"] == ([] if way == "never" else [{"row": 1}])
    assert f"| {way} " in (out / "summary.md").read_text() and status in (out / "summary.md").read_text()
    assert not is_fine


def test_no_part_starts_when_the_budget_is_spent(tmp_path):
    assert not run([make_part("finish", 1.0)], tmp_path, budget=0)
    assert json.loads((tmp_path / "finish.json").read_text())["status"] == "out of time"


def make_job(seconds: float = 1000) -> Job:
    return Job(CPU, time.time() + seconds)


def test_running_out_of_memory_stops_one_measurement_only():
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 PiB\nand more")

    first = make_job().attempt({"batch": 1}, too_large)
    assert first["error"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 1 PiB"
    assert make_job().attempt({"batch": 2}, lambda: {"value": 3})["value"] == 3


def test_a_measurement_without_enough_time_is_skipped():
    row = make_job(seconds=20).attempt({"batch": 1}, lambda: {"value": 1}, seconds=60)
    assert "skipped" in row and "value" not in row


def test_missing_deterministic_kernels_are_noted_and_retried():
    def measure():
        if torch.get_deterministic_debug_mode() == 2:
            raise RuntimeError("x does not have a deterministic implementation")
        return {"value": 1}

    torch.set_deterministic_debug_mode("error")
    row = make_job().attempt({}, measure)
    assert row["value"] == 1 and "deterministic" in row["not_deterministic"]
    assert torch.get_deterministic_debug_mode() == 2
    assert find_failed_checks({"results": [{**row, "check": "a"}]})


def test_batches_are_doubled_until_memory_or_speed_ends():
    """Of three networks one runs out of memory at 8, one is no faster at 4, and one could go on."""
    measured = []

    def measure(name, batch, seconds):
        measured.append((name, batch))
        if name == "large" and batch == 8:
            return {"error": "out of memory"}
        speed = 100 if name == "slow" else 100 * batch
        return {"batch": batch, "tokens_per_second": speed, "wall_seconds": 1}

    first = {"batch": 2, "tokens_per_second": 100, "wall_seconds": 1}
    rows = list(grow_batches({"large": first, "slow": first, "small": first}, 3, measure))
    assert len(rows) == len(measured)
    assert measured == [
        ("large", 4),
        ("slow", 4),
        ("small", 4),
        ("large", 8),
        ("small", 8),
        ("small", 16),
    ]


def test_a_size_of_chunks_holds_for_its_measurement_only(monkeypatch):
    monkeypatch.setattr(training, "measure_here", lambda _: {"chunk": md4.CHUNK_BYTES, "flops_per_second": 1})
    before = md4.CHUNK_BYTES
    row = measure_speed(make_job(), STEP, 0, chunk_bytes=5)
    assert (row["chunk"], md4.CHUNK_BYTES) == (5, before)


def test_an_error_in_one_small_parameter_does_not_pass():
    """Its part of the whole gradient is far below the tolerance."""
    reference = [1.0], {"large": torch.full((10,), 100.0), "small": torch.full((2,), 1.0)}
    compare = partial(compare_traces, reference=reference, tolerance=TOLERANCES["float32"])
    same = compare(reference)
    assert same["loss"] == same["gradient"] == same["parameter"] == 0
    off = [1.0], {**reference[1], "small": torch.full((2,), 1.02)}
    with pytest.raises(ValueError, match=r"gradient 8.9e-05 \(1e-04\), parameter 1.6e-02 \(1e-03\); parameter small"):
        compare(off)


def test_a_loss_that_is_not_finite_does_not_pass():
    reference = [1.0, 2.0], {"weight": torch.ones(2)}
    for losses in ([math.nan, 2.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="loss nan"):
            compare_traces((losses, reference[1]), reference, TOLERANCES["float32"])


def test_every_network_and_objective_with_masks_is_checked():
    assert {case.objective.kind for case in CASES.values()} == {"md4", "genmd4"}
    assert {case.shape.network.kind for case in CASES.values()} == NetworkConfig.kinds.keys()
    assert CHUNKED in NETWORKS and NETWORKS.keys() == TINY["speed"]["networks"].keys()


def test_the_measured_networks_have_the_papers_sizes():
    """Their parameters are counted in test_training."""
    assert NETWORKS.keys() == {"text8", "gpt2-small", "cifar10", "imagenet64"}
    assert (SHAPES["text8"].shape, SHAPES["gpt2-small"].shape) == ((256,), (1024,))
    assert (SAMPLING.length, SAMPLING.vocab_size, SAMPLING.steps) == (1024, 50257, 1000)


def test_weights_of_checks_have_no_zeros():
    """Or gradients behind them would be zero, and nothing would be compared."""
    network = gpu_checks.build_perturbed_network(CASES["uvit, md4"].shape.shrink())
    assert all(parameter.count_nonzero() == parameter.numel() for parameter in network.parameters())
