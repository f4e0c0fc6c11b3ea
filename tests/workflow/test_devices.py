"""Jobs that run side by side have different GPUs, by real processes that hold them for a while."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow.devices import VISIBLE, allocate_gpus, visible_gpus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
JOB = """
import json, os, sys, time
from workflow.devices import allocate_gpus
with allocate_gpus(int(sys.argv[1])):
    start = time.monotonic()
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(float(sys.argv[2]))
    print(json.dumps([start, time.monotonic()]), flush=True)
"""


@pytest.fixture
def machine(tmp_path) -> dict[str, str]:
    """The environment of a machine with three GPUs, all of them free."""
    return {**os.environ, VISIBLE: "GPU-a,GPU-b,GPU-c", "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}


def start(machine: dict[str, str], count: int, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", JOB, str(count), str(seconds)]
    return subprocess.Popen(command, env=machine, stdout=subprocess.PIPE, text=True)


def test_each_job_has_its_own_gpus_as_many_as_requested(machine):
    counts = [1, 2, 1, 3, 1, 2]
    jobs = [start(machine, count, 0.3) for count in counts]
    spans = []
    for job, count in zip(jobs, counts, strict=True):
        devices, span = job.communicate(timeout=60)[0].splitlines()
        assert len(set(devices.split(",")) & {"GPU-a", "GPU-b", "GPU-c"}) == count
        spans += [(device, *json.loads(span)) for device in devices.split(",")]
    spans.sort()
    for (device, _, end), (next_device, begin, _) in itertools.pairwise(spans):
        assert device != next_device or end <= begin


def test_a_killed_job_gives_its_gpus_back(machine):
    first = start(machine, 3, 60)
    assert first.stdout.readline().strip() == "GPU-a,GPU-b,GPU-c"
    second = start(machine, 1, 0)
    time.sleep(0.5)
    assert second.poll() is None
    os.kill(first.pid, signal.SIGKILL)
    assert second.communicate(timeout=60)[0].startswith("GPU-")
    first.communicate()


def test_more_gpus_than_there_are_is_an_error_that_names_them(monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1")
    with pytest.raises(ValueError, match="needs 3 GPUs and this machine shows 2: 0, 1"), allocate_gpus(3):
        pass


@pytest.mark.parametrize(
    ("visible", "devices"), [("", []), ("-1", []), ("NoDevFiles", []), ("0, 1", ["0", "1"]), ("2,-1,3", ["2"])]
)
def test_gpus_are_those_that_cuda_would_show(monkeypatch, visible, devices):
    monkeypatch.setenv(VISIBLE, visible)
    assert visible_gpus() == devices


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch):
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", "")
    assert visible_gpus() == []
    with allocate_gpus(1):
        assert VISIBLE not in os.environ
