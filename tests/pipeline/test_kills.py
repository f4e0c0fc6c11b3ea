"""kill -9, anywhere: a plain `snakemake` or `dvc repro` finishes, with the bytes of a run that nothing interrupted."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest
import yaml

from tests.pipeline.conftest import WorkingCopy, fresh_copy

pytestmark = pytest.mark.pipeline

RUN = "letters"
CHECKPOINT_EVERY = 25


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> WorkingCopy:
    """One run and what follows from it, with a training long enough to be caught in the middle."""
    copy = fresh_copy(tmp_path_factory.mktemp("uninterrupted"))
    for section, name in {"sources": "pydantic_docs", "datasets": "docs_letters", "runs": RUN}.items():
        copy.keep_only(section, name)
    copy.edit_params("comparisons", [])
    copy.edit_params("zero_shot.runs", [])
    copy.edit_params("zero_shot.sources", [])
    copy.edit_params("samplers.runs", {})
    copy.edit_params(f"runs.{RUN}.train.steps", 400)
    copy.edit_params(f"runs.{RUN}.train.checkpoint_every", CHECKPOINT_EVERY)
    copy.run("snakemake")
    return copy


@pytest.fixture
def untrained(uninterrupted, tmp_path) -> Iterator[WorkingCopy]:
    """A copy that has lost the model, the checkpoints and all memory of the training, but of nothing else.

    What follows from the model need not be computed again if the model has the same bytes as before.
    """
    copy = uninterrupted.twin(tmp_path)
    shutil.rmtree(copy.root / "models" / RUN)
    shutil.rmtree(copy.root / ".mdpipe/scratch")
    lock = yaml.safe_load(copy.lock())
    del lock["stages"][f"train@{RUN}"]
    (copy.root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    for remembered in (copy.root / ".dvc/cache/runs").glob("*/*/*"):
        if f"cmd: mdpipe train {RUN}\n" in remembered.read_text():
            shutil.rmtree(remembered.parent)
    yield copy
    shutil.rmtree(copy.root)


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
    return {str(path) for path in files if path.stem != f"step-{CHECKPOINT_EVERY:09d}"}


def wait_for_checkpoints(copy: WorkingCopy, engine: "subprocess.Popen[str]") -> None:
    """Wait until the training is well under way."""
    while not checkpoint_files(copy):
        assert engine.poll() is None, "the engine ended before it could be interrupted"
        time.sleep(0.02)


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
def test_training_goes_on_where_it_was_killed(untrained, uninterrupted, engine, victim, again):
    process = interrupt(untrained, engine, victim, signal.SIGKILL)
    process.wait()
    if again[0] == "dvc":
        wait_until_gone(untrained)
    untrained.run(*again)
    assert untrained.is_up_to_date()
    assert untrained.digest(f"models/{RUN}") == uninterrupted.digest(f"models/{RUN}")
    assert untrained.lock() == uninterrupted.lock()
    assert untrained.stages_run().count(f"train {RUN}") == 2


@pytest.mark.parametrize(("victim", "finishes"), [(is_training, True), (is_job, False)], ids=["training", "job"])
def test_a_preempted_training_goes_on_at_once_or_with_the_next_engine(untrained, uninterrupted, victim, finishes):
    """Whoever asks the training alone to end has it run again; whoever asks its job wants the machine."""
    process = interrupt(untrained, ("snakemake",), victim, signal.SIGUSR1)
    assert (process.wait() == 0) is finishes
    if not finishes:
        untrained.run("snakemake")
    assert untrained.is_up_to_date()
    assert untrained.digest(f"models/{RUN}") == uninterrupted.digest(f"models/{RUN}")
    assert untrained.stages_run().count(f"train {RUN}") == 2


def interrupt(copy: WorkingCopy, engine, victim, number: signal.Signals) -> "subprocess.Popen[str]":
    """Start an engine and send a signal to a part of it in the middle of the training."""
    process = copy.start(*engine)
    wait_for_checkpoints(copy, process)
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


def test_a_second_engine_in_the_same_place_is_refused_and_harms_nothing(untrained, uninterrupted):
    first = untrained.start("snakemake")
    wait_for_checkpoints(untrained, first)
    refusal = untrained.run("snakemake", succeeds=False)
    assert f"another snakemake is at work in this folder (process {first.pid})" in refusal
    assert first.wait() == 0
    assert untrained.is_up_to_date()
    assert untrained.lock() == uninterrupted.lock()
