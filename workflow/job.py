"""Run one stage through DVC and end with the engine that started it: `python -m workflow.job STAGE GPUS`.

It runs `dvc --wait-for-lock repro --single-item STAGE` in this process, which saves the start of another one.
`--single-item` leaves the order to Snakemake; `--wait-for-lock` lets jobs that run at the same time take turns where
DVC needs exclusive access. A killed engine leaves its jobs running, and the next engine would find their outputs in
use. Each job therefore polls its engine's PID, and a lock tells the next engine when all jobs have ended. Training
loses nothing: it resumes from its last checkpoint.

A signal to end (from a batch system, before it takes the machine away) is passed on to the stage. Training that was
interrupted by any other process, and can resume, is run again.
"""

import fcntl
import io
import os
import re
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import psutil
from dvc.cli import main as dvc
from dvc.utils.serialize import _yaml

from mdpipe.data.artifacts.files import write_json
from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import code_commit, locked_outputs, locked_stages
from mdpipe.processes import exit_with_parent
from workflow.cache import stop_at_full_disk, verify_objects
from workflow.devices import allocate_gpus

ENGINE_PID = "MDPIPE_ENGINE_PID"
JOBS_LOCK = Path(".mdpipe/jobs.lock")

HEAD = "schema: '2.0'\nstages:\n"
"""The beginning of dvc.lock, before the entries of its stages."""
ENTRY = re.compile(r"^(?=  \S)", re.MULTILINE)
"""The place before an entry of dvc.lock."""
ANCHOR = "&id"
"""The beginning of YAML's name for a value that occurs twice; such names are numbered over all entries."""


def main(stage: str, gpus: int) -> int:
    """Run the stage with this many GPUs, if the machine has any; return DVC's exit status."""
    # DVC may be in the middle of anything and survives that; its command ends by itself.
    engine = int(os.environ[ENGINE_PID])
    exit_with_parent(lambda: _is_alive(engine))
    update_lock_file_fast()
    verify_objects(remove=True)
    stop_at_full_disk()
    received = _forward_signals()
    requeue = paths.REQUEUE_DIR / stage
    with JOBS_LOCK.open("w") as lock, allocate_gpus(gpus):
        fcntl.flock(lock, fcntl.LOCK_SH)  # filelock has no shared locks.
        while True:
            requeue.unlink(missing_ok=True)
            status = int(dvc(["--wait-for-lock", "repro", "--single-item", stage]))
            if received or not requeue.exists():
                record_job(stage)
                return status


def record_job(stage: str) -> None:
    """Record the CPU seconds of a stage, the commit, and the hashes of its outputs.

    The CPU seconds are those of the processes that this one has waited for: the stage's command, without DVC. Snakemake
    samples them only every 30 seconds after the first 15, so that it misses a part of most stages.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "commit": code_commit(),
        "outputs": locked_outputs(locked_stages().get(stage, {})),
    }
    paths.JOBS_DIR.mkdir(parents=True, exist_ok=True)
    write_json(paths.JOBS_DIR / stage, record)


def _forward_signals() -> list[int]:
    """Forward SIGTERM and SIGUSR1 to all descendants and go on; return a list to which received signals are added."""
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, forward)
    return received


def update_lock_file_fast() -> None:
    """Have DVC parse dvc.lock in C for an update, and keep the text of all entries that do not change.

    DVC parses and writes all of it in pure Python, which keeps comments and line breaks; a lock file has none that DVC
    did not put there, and the bytes written are the same. In a suite of sixty stages a job then takes 0.9 s of CPU of
    its own in place of 1.7 s.
    """
    dump = _yaml._dump
    lock: Any = {}
    texts: dict[str, str] = {}  # by name and content of the entry

    def parse(text: str, path: str) -> Any:
        nonlocal lock
        lock = _yaml.parse_yaml(text, path)
        texts.clear()
        head, *entries = ENTRY.split(text)
        if head == HEAD and entries and len(entries) == len(lock["stages"]):
            texts.update(zip(map(repr, lock["stages"].items()), entries, strict=True))
        return lock

    def to_text(name: str, entry: Any) -> str:
        if (known := texts.get(repr((name, entry)))) is not None:
            return known
        stream = io.StringIO()
        dump({"stages": {name: entry}}, stream)
        return stream.getvalue().partition("\n")[2]

    def write(data: Any, stream: TextIO) -> None:
        stages = lock.get("stages")
        if data is lock and texts and stages and [*lock.items()] == [("schema", "2.0"), ("stages", stages)]:
            content = HEAD + "".join(to_text(*item) for item in stages.items())
            if ANCHOR not in content:
                stream.write(content)
                return
        dump(data, stream)

    _yaml.parse_yaml_for_update, _yaml._dump = parse, write


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], int(sys.argv[2])))
    except ValueError as error:
        sys.exit(f"error: {error}")
