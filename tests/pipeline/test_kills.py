"""kill -9, anywhere: a plain `snakemake` or `dvc repro` finishes, with the bytes of a run that nothing interrupted."""

import itertools
import os
import signal
import subprocess
import time

import psutil
import pytest

from tests.pipeline.conftest import WorkingCopy

pytestmark = pytest.mark.pipeline

RUN = "letters"
LONGER = {"steps": 400, "checkpoint_every": 25}


def lengthen(copy: WorkingCopy) -> None:
    """Make the training long enough to be caught in the middle, and what follows from it short."""
    for key, value in LONGER.items():
        copy.edit_params(f"runs.{RUN}.train.{key}", value)
    copy.edit_params("zero_shot.runs", [])
    copy.edit_params("samplers.runs", {})


@pytest.fixture(scope="module")
def uninterrupted(built, tmp_path_factory) -> WorkingCopy:
    copy = built.twin(tmp_path_factory.mktemp("uninterrupted"))
    lengthen(copy)
    copy.run("snakemake")
    return copy


def is_engine(process: psutil.Process) -> bool:
    return "snakemake" in " ".join(process.cmdline()[:2]) or process.cmdline()[-1:] == ["repro"]


def is_job(process: psutil.Process) -> bool:
    return process.cmdline()[1:4] == ["-m", "workflow.job", f"train@{RUN}"]


def is_training(process: psutil.Process) -> bool:
    return process.cmdline()[-2:] == ["train", RUN] and "mdpipe" in process.cmdline()[2]


def find(engine: psutil.Process, wanted) -> psutil.Process | None:
    try:
        for process in [engine, *engine.children(recursive=True)]:
            if wanted(process):
                return process
    except psutil.NoSuchProcess:
        pass
    return None


def checkpoint_files(copy: WorkingCopy) -> set[str]:
    """The checkpoints of the run but for the very first."""
    files = copy.root.glob(f".mdpipe/scratch/{RUN}-*/step-*.safetensors")
    return {str(path) for path in files if path.stem != f"step-{LONGER['checkpoint_every']:09d}"}


@pytest.mark.parametrize(
    ("engine", "victim", "again"),
    [
        (("snakemake",), is_engine, ("snakemake",)),
        (("snakemake",), is_engine, ("dvc", "repro")),
        (("snakemake",), is_job, ("snakemake",)),
        (("snakemake",), is_job, ("dvc", "repro")),
        (("snakemake",), is_training, ("snakemake",)),
        (("dvc", "repro"), is_engine, ("dvc", "repro")),
        (("dvc", "repro"), is_engine, ("snakemake",)),
        (("dvc", "repro"), is_training, ("snakemake",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value.__name__.removeprefix("is_"),
)
def test_training_goes_on_where_it_was_killed(made, uninterrupted, engine, victim, again):
    process = interrupt(made, engine, victim, signal.SIGKILL)
    process.wait()
    if again[0] == "dvc":
        wait_until_gone(made)
    made.run(*again)
    assert made.is_up_to_date()
    assert made.digest(f"models/{RUN}") == uninterrupted.digest(f"models/{RUN}")
    assert made.lock() == uninterrupted.lock()
    assert made.stages_run().count(f"train {RUN}") == 2


@pytest.mark.parametrize(("victim", "finishes"), [(is_training, True), (is_job, False)], ids=["training", "job"])
def test_a_preempted_training_goes_on_at_once_or_with_the_next_engine(made, uninterrupted, victim, finishes):
    """Whoever asks the training alone to end has it run again; whoever asks its job wants the machine."""
    process = interrupt(made, ("snakemake",), victim, signal.SIGUSR1)
    assert (process.wait() == 0) is finishes
    if not finishes:
        made.run("snakemake")
    assert made.is_up_to_date()
    assert made.digest(f"models/{RUN}") == uninterrupted.digest(f"models/{RUN}")
    assert made.stages_run().count(f"train {RUN}") == 2


def interrupt(copy: WorkingCopy, engine, victim, number: signal.Signals) -> "subprocess.Popen[str]":
    """Start an engine and send a signal to a part of it in the middle of a longer training."""
    lengthen(copy)
    before = checkpoint_files(copy)
    process = copy.start(*engine)
    for _ in itertools.count():
        assert process.poll() is None, "the engine ended before it could be interrupted"
        if checkpoint_files(copy) - before:
            break
        time.sleep(0.02)
    found = find(psutil.Process(process.pid), victim)
    assert found is not None
    found.send_signal(number)
    return process


def wait_until_gone(copy: WorkingCopy) -> None:
    """DVC refuses to run beside a live DVC; what a killed engine started ends within seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        alive = [p for p in psutil.process_iter(["cwd", "cmdline"]) if p.info["cwd"] == str(copy.root)]
        if not [p for p in alive if p.pid != os.getpid()]:
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {[p.info['cmdline'] for p in alive]}")


def test_a_lock_file_cut_short_by_a_kill_costs_no_computing(made):
    lock = made.root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: len(whole) // 2])
    made.run("snakemake")
    assert made.is_up_to_date()
    assert made.lock() == whole
    assert set(made.stages_run()) <= {"report"}


def test_a_second_engine_in_the_same_place_is_refused_and_harms_nothing(made):
    lengthen(made)
    before = checkpoint_files(made)
    first = made.start("snakemake")
    while checkpoint_files(made) == before:
        assert first.poll() is None
        time.sleep(0.05)
    assert f"another snakemake is at work in this folder (process {first.pid})" in made.run("snakemake", succeeds=False)
    assert first.wait() == 0
    assert made.is_up_to_date()
