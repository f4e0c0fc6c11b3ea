"""The GPU run, rehearsed on a CPU: whatever happens to a part, the others run and its measurements are kept."""

import io
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from mdpipe.benchmarks import gpu_checks, gpu_measurements
from mdpipe.benchmarks.gpu import NO_COMPILER, PARTS, Part, Report, find_failed_checks, run, run_part, summarize
from mdpipe.benchmarks.gpu_checks import FLOAT32, Trace, compare_traces
from mdpipe.benchmarks.gpu_measurements import CHUNKED, FULL, TINY, Measurement, grow_batches
from mdpipe.diffusion.objectives import md4
from mdpipe.networks.base import build_on_meta, count_parameters
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.networks import NetworkConfig
from mdpipe.training.distributed import World

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ABSENT = ("dvc", "snakemake", "datasets", "polars", "PIL", "sklearn", "sentencepiece", "typer")
"""Packages that no GPU run may need."""
CPU = torch.device("cpu")


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


def test_every_part_of_a_rehearsal_finishes_and_says_where_it_ran(rehearsal):
    assert list(rehearsal) and rehearsal.keys() == {part.name for part in PARTS}
    for document in rehearsal.values():
        assert document["status"] == "finished" and document["tiny"]
        assert document["machine"]["commit"] == "abc" and document["machine"]["torch"] == torch.__version__
        assert 0 < document["seconds"] <= document["limit"]


def test_a_rehearsal_compares_every_variant_of_every_check(rehearsal):
    for name in ("correctness", "parallel"):
        rows = rehearsal[name]["results"]
        compared = [row for row in rows if "gradient" in row]
        assert {row["check"] for row in compared} == set(gpu_checks.TINY)
        assert all(row["passed"] for row in compared) and not find_failed_checks(rehearsal[name])


class ListedRows(Report):
    """A report whose measurements are not made: every one has a row, and every doubled batch is faster."""

    def attempt(self, labels: dict, measure: Callable[[], dict], seconds: float = 0) -> dict:
        row = {**labels, "tokens_per_second": labels.get("batch", 1), "wall_seconds": 0}
        self.add(row)
        return row


@pytest.fixture
def list_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict]]:
    """Return a function that lists the rows of a part of a full run, or of a rehearsal."""

    def rows(part: str, *, tiny: bool = False, compiler_problem: str = "") -> list[dict]:
        for module in (gpu_checks, gpu_measurements):
            monkeypatch.setattr(module, "find_compiler_problem", lambda _: compiler_problem)
        report = ListedRows(tmp_path / "rows.json", tiny, CPU, math.inf)
        FUNCTIONS[part](report)
        return report.document["results"]

    monkeypatch.setattr(gpu_checks, "record_references", lambda report: dict.fromkeys(gpu_checks.get_checks(report)))
    monkeypatch.setattr(gpu_checks, "init_distributed", lambda: nullcontext(World()))
    monkeypatch.setattr(gpu_measurements, "measure_peak_flops", lambda *_: 1.0)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return rows


FUNCTIONS = {
    "correctness": gpu_checks.run_correctness,
    "parallel": gpu_checks.run_parallel,
    "speed": gpu_measurements.run_speed,
    "samplers": gpu_measurements.run_samplers,
}


def kinds_of(rows: list[dict]) -> set[tuple]:
    """Return what the rows are about, without sizes."""
    first = {row["network"]: row["batch"] for row in reversed(rows) if "network" in row}
    names = ("check", "variant", "network", "compiled", "sampler", "dtype")
    return {
        (
            *(row.get(name) for name in names),
            row["batch"] if "sampler" in row else row.get("batch") == first.get(row.get("network")),
            "chunk_bytes" in row,
        )
        for row in rows
    }


@pytest.mark.parametrize("part", FUNCTIONS)
def test_a_rehearsal_has_every_kind_of_row_of_a_full_run(rehearsal, list_rows, part):
    """Samplers, number formats, strategies, eager and compiled, first and doubled batches, chunks."""
    assert kinds_of(list_rows(part)) == kinds_of(list_rows(part, tiny=True))
    assert kinds_of(list_rows(part)) <= kinds_of(rehearsal[part]["results"])


def test_a_rehearsal_trains_as_a_full_run_does(rehearsal):
    assert TINY.hardware == FULL.hardware
    assert rehearsal["speed"]["precision"] == FULL.hardware.precision
    for name, shape in FULL.speeds.items():
        assert TINY.speeds[name].network.kind == shape.network.kind
        assert bool(TINY.speeds[name].network.dropout) == bool(shape.network.dropout)
    assert bool(TINY.training.shape.network.dropout) == bool(FULL.training.shape.network.dropout)


def test_a_rehearsal_doubles_a_batch_more_than_once(rehearsal):
    growth = {row["batch"] / TINY.speeds[row["network"]].batch for row in rehearsal["speed"]["results"]}
    assert FULL.doublings >= TINY.doublings >= 2 and 4 in growth


@pytest.mark.parametrize("sizes", [FULL, TINY])
def test_chunks_of_the_head_are_smaller_and_larger_than_its_logits(sizes):
    shape = sizes.speeds[CHUNKED]
    logits = shape.batch * shape.length * shape.vocab_size * 4
    assert 10 * min(sizes.chunk_bytes) < logits <= max(sizes.chunk_bytes)


@pytest.mark.parametrize(("part", "skipped"), [("correctness", 8), ("parallel", 2), ("speed", len(FULL.speeds))])
def test_where_no_compiler_works_the_compiled_rows_say_so(list_rows, part, skipped):
    rows = list_rows(part, compiler_problem="no g++")
    said = [row for row in rows if row.get("skipped") == f"{NO_COMPILER}: no g++"]
    compiled = [row for row in rows if row.get("compiled") or "compiled" in row.get("variant", "")]
    assert said == compiled and len(said) == skipped


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the steps are watched")
def test_waits_are_looked_for_in_every_objective(rehearsal):
    rows = [row for row in rehearsal["correctness"]["results"] if row["check"].startswith("no step waits")]
    assert {f"no step waits, {kind}" for kind in ObjectiveConfig.kinds} <= {row["check"] for row in rows}
    assert {row["skipped"] for row in rows} == {"needs a GPU"}


def test_speeds_agree_with_each_other(rehearsal):
    document = rehearsal["speed"]
    rows = document["results"]
    assert {(row["network"], row["batch"]) for row in rows} >= {(name, 4) for name in TINY.speeds}
    assert [row["chunk_bytes"] for row in rows if "chunk_bytes" in row] == list(TINY.chunk_bytes)
    for row in rows:
        assert row["examples_per_second"] * row["seconds_per_step"] == pytest.approx(row["batch"])
        assert row["mfu"] == pytest.approx(row["flops_per_second"] / document["matmul_peak"])


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
    assert 0 < after["steps"] <= document["planned_steps"]
    assert "not text8" in document["data"]
    assert "not text8" in summarize([document])


@pytest.fixture(scope="module")
def mishaps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A run whose parts fail in every way, and then one that does not."""
    out = tmp_path_factory.mktemp("mishaps")
    ways = {"fail": 0.5, "hang": 0.1, "die": 0.5, "never": 0.5, "finish": 0.5}
    parts = [Part(way, ("tests.benchmarks.fake_part", way), fraction) for way, fraction in ways.items()]
    patch = pytest.MonkeyPatch()
    patch.chdir(ROOT)
    try:
        return out, run(out, parts=parts, budget=60)
    finally:
        patch.undo()


@pytest.mark.parametrize(
    ("way", "status", "error"),
    [
        ("fail", "failed", "ValueError: no"),
        ("hang", "out of time", "it was ended after 6 s"),
        ("die", "failed", "its process ended with status -11; what it printed says more"),
        ("never", "failed", "its process ended with status 3; what it printed says more"),
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
    assert not run(tmp_path, parts=[Part("late", ("tests.benchmarks.fake_part", "finish"), 1.0)], budget=0)
    assert json.loads((tmp_path / "late.json").read_text())["status"] == "out of time"


def make_report(tmp_path: Path, seconds: float = 1000) -> Report:
    return Report(tmp_path / "part.json", True, CPU, time.time() + seconds)


def test_running_out_of_memory_stops_one_measurement_only(tmp_path):
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 PiB\nand more")

    report = make_report(tmp_path)
    assert report.attempt({"batch": 1}, too_large) is None
    assert report.attempt({"batch": 2}, lambda: {"value": 3})["value"] == 3
    first, second = json.loads(report.path.read_text())["results"]
    assert (first["error"], first["detail"]) == ("out of memory", "CUDA out of memory. Tried to allocate 1 PiB")
    assert second["value"] == 3


def test_a_measurement_without_enough_time_is_skipped(tmp_path):
    report = make_report(tmp_path, seconds=20)
    assert report.attempt({}, lambda: {"value": 1}, seconds=60) is None
    assert "skipped" in report.document["results"][0]


def test_missing_deterministic_kernels_are_noted_and_retried(tmp_path):
    def measure():
        if torch.get_deterministic_debug_mode() == 2:
            raise RuntimeError("x does not have a deterministic implementation")
        return {"value": 1}

    torch.set_deterministic_debug_mode("error")
    row = make_report(tmp_path).attempt({}, measure)
    assert row["value"] == 1 and "deterministic" in row["not_deterministic"]
    assert torch.get_deterministic_debug_mode() == 2
    assert find_failed_checks({"results": [{**row, "check": "a", "passed": True}]})


def test_a_part_that_raises_is_written_as_failed(tmp_path, monkeypatch):
    job = {"part": "x", "path": str(tmp_path / "x.json"), "end": time.time() + 9, "tiny": True, "commit": None}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(job)))
    with pytest.raises(IndexError):
        run_part({"x": lambda report: report.add({"row": 1}) or [][0]})
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["status"] == "failed" and document["error"].startswith("IndexError: list index")
    assert document["results"] == [{"row": 1}]


def test_batches_are_doubled_until_memory_or_speed_ends():
    """Of three networks one runs out of memory at 8, one is no faster at 4, and one could go on."""
    measured = []

    def measure(name, batch, seconds):
        measured.append((name, batch))
        if name == "large" and batch == 8:
            return None
        speed = 100 if name == "slow" else 100 * batch
        return {"batch": batch, "tokens_per_second": speed, "wall_seconds": 1}

    first = {"batch": 2, "tokens_per_second": 100, "wall_seconds": 1}
    grow_batches({"large": first, "slow": first, "small": first, "failed": None}, 3, measure)
    assert measured == [
        ("large", 4),
        ("slow", 4),
        ("small", 4),
        ("large", 8),
        ("small", 8),
        ("small", 16),
    ]


def test_a_size_of_chunks_holds_for_its_measurement_only(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Measurement, "measure_speed", lambda _: seen.append(md4.CHUNK_BYTES) or {})
    report = make_report(tmp_path)
    before = md4.CHUNK_BYTES
    Measurement(report, TINY.speeds["text8"], 1, False).measure_chunks(5)
    assert seen == [5] and before == md4.CHUNK_BYTES


def test_an_error_in_one_small_parameter_does_not_pass():
    """Its share in the whole gradient is far below the tolerance."""
    reference = Trace([1.0], {"large": torch.full((10,), 100.0), "small": torch.full((2,), 1.0)})
    same = compare_traces(reference, reference, FLOAT32)
    assert same["passed"] and same["loss"] == same["gradient"] == same["parameter"] == 0
    off = Trace([1.0], {**reference.gradients, "small": torch.full((2,), 1.02)})
    row = compare_traces(off, reference, FLOAT32)
    assert row["gradient"] <= FLOAT32.gradient and not row["passed"] and row["worst_parameter"] == "small"


def test_a_loss_that_is_not_finite_does_not_pass():
    reference = Trace([1.0, 2.0], {"weight": torch.ones(2)})
    for losses in ([math.nan, 2.0], [1.0, math.nan]):
        assert not compare_traces(Trace(losses, reference.gradients), reference, FLOAT32)["passed"]


def test_every_network_is_checked_and_every_name_is_known():
    for checks, sizes in ((gpu_checks.FULL, FULL), (gpu_checks.TINY, TINY)):
        assert {check.objective.kind for check in checks.values()} == {"md4", "genmd4"}
        assert {check.shape.network.kind for check in checks.values()} == NetworkConfig.kinds.keys()
        assert set(gpu_checks.COMPILED_ORDER) == checks.keys()
        assert CHUNKED in sizes.speeds


def test_the_measured_networks_have_the_published_sizes():
    networks = {
        name: build_on_meta(shape.network, shape.vocab_size, shape.shape) for name, shape in FULL.speeds.items()
    }
    millions = {name: round(count_parameters(network) / 1e6, 1) for name, network in networks.items()}
    assert millions == {"text8": 88.7, "gpt2-small": 165.9, "cifar10": 28.4, "imagenet64": 198.3}
    lengths = {name: shape.shape for name, shape in FULL.speeds.items()}
    assert lengths["text8"] == (256,) and lengths["gpt2-small"] == (1024,)
    samplers = {(row.length, row.vocab_size, row.steps) for row in FULL.samplers}
    assert samplers == {(1024, 50257, 1000)}


def test_weights_of_checks_have_no_zeros():
    """Or gradients behind them would be zero, and nothing would be compared."""
    network = gpu_checks.build_perturbed_network(gpu_checks.TINY["uvit, md4"].shape)
    assert all(parameter.count_nonzero() == parameter.numel() for parameter in network.parameters())
