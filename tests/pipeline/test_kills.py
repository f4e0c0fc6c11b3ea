"""kill -9, anywhere: a plain `snakemake` or `dvc repro` finishes, with the bytes of a run that nothing interrupted."""

import os
import signal
import time

import psutil
import pytest

from tests.pipeline.conftest import RUN, WorkingCopy, wait_for_checkpoints

pytestmark = pytest.mark.pipeline


def is_engine(process: psutil.Process) -> bool:
    return "snakemake" in " ".join(process.cmdline()[:2]) or process.cmdline()[-1:] == ["repro"]


def is_job(process: psutil.Process) -> bool:
    return process.cmdline()[1:4] == ["-m", "workflow.job", f"train@{RUN}"]


def is_training(process: psutil.Process) -> bool:
    command = process.cmdline()  # Once: in the moment of an exec it may be short.
    return command[-2:] == ["train", RUN] and "mdpipe" in command[-3:-2]


def find(engine: psutil.Process, wanted) -> psutil.Process | None:
    try:
        for process in [engine, *engine.children(recursive=True)]:
            if wanted(process):
                return process
    except psutil.NoSuchProcess:
        pass
    return None


SNAKEMAKE, DVC = ("snakemake",), ("dvc", "repro")
KILL, PREEMPT = signal.SIGKILL, signal.SIGUSR1

INTERRUPTIONS = [
    (SNAKEMAKE, is_engine, KILL),
    (SNAKEMAKE, is_engine, KILL),
    (DVC, is_engine, KILL),
    (DVC, is_engine, KILL),
    (SNAKEMAKE, is_job, KILL),
    (DVC, is_training, KILL),
    (SNAKEMAKE, is_training, KILL),
    (SNAKEMAKE, is_job, PREEMPT),
    (SNAKEMAKE, is_training, PREEMPT),
]
"""One after another in one training, so that either engine follows either, whatever was killed.

A signal to the job asks for the machine, and the engine ends. A signal to the training alone has it run again: the last
engine finishes.
"""


def test_training_resumes_after_each_interruption(untrained, uninterrupted):
    """Meanwhile a second engine in the same place is refused, and harms nothing."""
    untrained = untrained.with_real_processes()
    for place, (engine, victim, number) in enumerate(INTERRUPTIONS):
        finishes = place == len(INTERRUPTIONS) - 1
        process = untrained.start(*engine)
        while not (training := find(psutil.Process(process.pid), is_training)):  # Not one that a killed engine left.
            assert process.poll() is None, "the engine ended before it trained"
            time.sleep(0.02)
        wait_for_checkpoints(untrained, process)
        if place == 0:
            training.suspend()
            refusal = untrained.run("snakemake", succeeds=False)
            assert f"another snakemake is running in this folder (process {process.pid})" in refusal
            training.resume()
        found = find(psutil.Process(process.pid), victim)
        assert found is not None
        training.suspend()  # However fast the processor, the training does not end before what is killed around it.
        parent = training.ppid()
        found.send_signal(number)
        if number == PREEMPT:
            training.resume()
        elif found != training:
            wait_until_orphaned(training, parent)
            training.resume()
        assert (process.wait() == 0) is finishes, f"{place}: {engine} {victim.__name__} {number.name}"
        if not finishes and INTERRUPTIONS[place + 1][0] == DVC:
            wait_until_gone(untrained)
    assert untrained.is_up_to_date()
    assert untrained.digest(f"models/{RUN}") == uninterrupted.digest(f"models/{RUN}")
    assert untrained.lock() == uninterrupted.lock()
    assert untrained.stages_run().count(f"train {RUN}") == len(INTERRUPTIONS) + 1


def wait_until_orphaned(training: psutil.Process, parent: int) -> None:
    deadline = time.monotonic() + 20
    while training.ppid() == parent:
        assert time.monotonic() < deadline, "what runs the training outlives the engine"
        time.sleep(0.02)


def wait_until_gone(copy: WorkingCopy) -> None:
    """DVC refuses to run beside a live DVC; what a killed engine started ends within seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        alive = [p for p in psutil.process_iter(["cwd", "cmdline"]) if p.info["cwd"] == str(copy.root)]
        if not [p for p in alive if p.pid != os.getpid()]:
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {[p.info['cmdline'] for p in alive]}")
