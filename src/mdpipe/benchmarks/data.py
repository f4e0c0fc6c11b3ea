"""Preparing data measured: MB and tokens a second from JSON lines to training batches, and the memory that it took.

Each step is a process of its own; this one starts them, looks at their memory meanwhile and hashes what they wrote. As
a program (`python -m mdpipe.benchmarks.data`) it reads a configuration from the standard input and writes the
measurement to the standard output, both as JSON.

Two numbers tell the memory of a step. `peak_mib` is the largest resident set that any single one of its processes ever
had, as the system recorded it (ru_maxrss of the step and of its workers): what must fit a core's share of the memory.
`peak_together_mib` is the largest sum over all of them that was seen by looking ten times a second: pages that they
share, of libraries and of mapped files, count once for each.

Whatever is read was written just before, so it comes from the system's cache as far as that holds it: these are speeds
of the code, not of a cold disk.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import psutil

from mdpipe.benchmarks.data_configuration import DataConfiguration
from mdpipe.data.artifacts.room import require_room
from mdpipe.data.work.piecewise import WORKERS

STEPS = "mdpipe.benchmarks.data_steps"
"""The module that does the steps."""
SECONDS_BETWEEN_LOOKS = 0.1
MEGABYTE = 10**6
MEBIBYTE = 2**20
ROOM = 5
"""Bytes on the disk for one of text, about: as JSON lines, as raw material, as tokens, as tokens after the kill, and
the pictures."""


def measure(configuration: DataConfiguration) -> dict[str, Any]:
    """Write, read, encode, draw; where that is asked for, encode once more with a kill in the middle."""
    with _place(configuration) as folder:
        require_room(folder, ROOM * configuration.size * MEGABYTE, "measuring")
        steps = _Steps(configuration, folder)
        written, read, encoded = steps.run("write"), steps.run("read"), steps.run("encode", "encoded")
        sha256 = digest(folder / "encoded")
        killed = steps.run_after_kill(encoded) if configuration.kill else {}
        drawn = steps.run("draw")
    return {
        "bytes": written["bytes"],
        "text_bytes": read["text_bytes"],
        "documents": read["documents"],
        "shards": read["shards"],
        "vocabulary": written["vocabulary"],
        "tokens": encoded["tokens"],
        "write_seconds": written["seconds"],
        "write_mb_per_second": written["bytes"] / MEGABYTE / written["seconds"],
        "read_seconds": read["seconds"],
        "read_mb_per_second": written["bytes"] / MEGABYTE / read["seconds"],
        "read_cpu_seconds": read["cpu_seconds"],
        "read_peak_mib": read["peak_mib"],
        "read_peak_together_mib": read["peak_together_mib"],
        "encode_seconds": encoded["seconds"],
        "encode_mb_per_second": read["text_bytes"] / MEGABYTE / encoded["seconds"],
        "tokens_per_second": encoded["tokens"] / encoded["seconds"],
        "encode_cpu_seconds": encoded["cpu_seconds"],
        "encode_peak_mib": encoded["peak_mib"],
        "encode_peak_together_mib": encoded["peak_together_mib"],
        "sha256": sha256,
        "shards_kept": killed.get("tokens_kept"),
        "searches_kept": killed.get("leaks_kept"),
        "again_seconds": killed.get("seconds"),
        "sha256_after_kill": killed.get("sha256"),
        "training_tokens_per_second": drawn["tokens_per_second"],
        "pictures_per_second": drawn["pictures_per_second"],
    }


def digest(directory: Path) -> str:
    """Of the names and the bytes of all files in a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"{path.relative_to(directory).as_posix()} {content}\n".encode())
    return found.hexdigest()


class _Steps:
    """The steps of a configuration, each a group of processes that does not outlive it."""

    def __init__(self, configuration: DataConfiguration, folder: Path) -> None:
        self._folder = folder
        self._arguments = [json.dumps(asdict(configuration)), str(folder)]
        self._environment = {**os.environ, WORKERS: str(configuration.workers)}

    def run(self, step: str, *name: str) -> dict[str, Any]:
        """What the step measured, `peak_together_mib`, and the seconds from its process's start to its end.

        Raises:
            ValueError: it was killed.
            SystemExit: it failed, and has said why.
        """
        start = perf_counter()
        with self._started(step, *name) as process:
            together = _most_together(process)
            ended = perf_counter()
            if process.returncode < 0:
                raise ValueError(f"the step {step!r} was killed; perhaps memory ran out")
            if process.returncode:
                sys.exit(process.returncode)
            measured = json.loads(process.communicate()[0])
        # It may have been at its largest between two looks.
        return {**measured, "peak_together_mib": max(together, measured["peak_mib"]), "process_seconds": ended - start}

    def run_after_kill(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Encode, but kill it when half of the time is over that `whole` took; then encode to the end."""
        pieces = self._folder / "again-pieces"
        delay = whole["process_seconds"] - whole["seconds"] / 2
        while not self._killed_after(delay):  # It was faster this time.
            rmtree(pieces, ignore_errors=True)
            delay /= 2
        kept = {f"{what}_kept": len(list((pieces / what).glob("[0-9]*"))) for what in ("tokens", "leaks")}
        return {**self.run("encode", "again"), **kept, "sha256": digest(self._folder / "again")}

    def _killed_after(self, delay: float) -> bool:
        with self._started("encode", "again") as process, suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        return process.returncode < 0

    @contextmanager
    def _started(self, step: str, *name: str) -> Iterator["subprocess.Popen[str]"]:
        command = [sys.executable, "-m", STEPS, step, *self._arguments, *name]
        with subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, text=True, process_group=0
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _place(configuration: DataConfiguration) -> Iterator[Path]:
    """A folder of the configuration's own, which goes again unless one was named."""
    if configuration.folder is None:
        with TemporaryDirectory(prefix="mdpipe-") as temporary:
            yield Path(temporary)
        return
    name = f"{configuration.tokenizer}-{configuration.size}-{configuration.workers}"
    directory = Path(configuration.folder) / name
    directory.mkdir(parents=True)  # Not one that is there: finished pieces in it would be taken for this one's.
    yield directory


def _most_together(process: "subprocess.Popen[str]") -> float:
    """Wait for the end, and give the most MiB that it and its descendants were seen to hold."""
    largest = 0
    while True:
        largest = max(largest, _together(process.pid))
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_BETWEEN_LOOKS)
            return largest / MEBIBYTE


def _together(pid: int) -> int:
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


if __name__ == "__main__":
    # As an exception, so that processes and files go when this one is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it was told to end"))
    json.dump(measure(DataConfiguration(**json.load(sys.stdin))), sys.stdout)
