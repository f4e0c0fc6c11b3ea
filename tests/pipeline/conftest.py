"""Working copies of the repository, with a small graph, in which the real engines run."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import dump_yaml

from tests.pipeline.fork_server import fork_server

ROOT = Path(__file__).parents[2]
RUN = "chars_md4"
CHECKPOINT_EVERY = 10
MADE_BY_THE_DEFAULT_SUITE = (
    "dvc.lock",
    "metrics",
    "params.resolved.yaml",
    "results/curves",
    "results/datasets",
    "results/likelihood",
    "results/samplers",
    "results/samples",
    "results/zero_shot",
)


class WorkingCopy:
    """A copy of the repository's working tree, with separate code, artifacts and list of stages run.

    With the commands of a fork server, engines and stages are processes that it forks.
    """

    def __init__(self, root: Path, calls: Path, commands: Path | None) -> None:
        self.root, self._calls, self._commands = root, calls, commands
        shim = calls.parent / "bin" / "mdpipe"
        shim.parent.mkdir(exist_ok=True)
        # A wrapper that takes note of each stage run, then does run it.
        run = f'"{commands}/mdpipe"' if commands else f'"{sys.executable}" -m mdpipe'
        shim.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\nexec {run} "$@"\n')
        shim.chmod(shim.stat().st_mode | stat.S_IEXEC)
        first = [shim.parent, *([commands] if commands else []), Path(sys.executable).parent]
        path = os.pathsep.join([*map(str, first), os.environ["PATH"]])
        # DVC runs commands by this shell. That of Debian forks for a command where others exec.
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(root / "src"), "SHELL": "/bin/sh"}
        # Users have bytecode beside the code: it makes nothing stale, and every start is faster.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command in the copy; its output goes to a file beside it."""
        with (self._calls.parent / "output.log").open("a") as output:
            return subprocess.Popen(
                command, cwd=self.root, env=self.environment, stdout=output, stderr=subprocess.STDOUT, text=True
            )

    def run(self, *command: str, succeeds: bool = True) -> str:
        """Run a command in the copy and give what it printed."""
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=900)
        assert (done.returncode == 0) is succeeds, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def stages_run(self) -> list[str]:
        """Return the stages whose commands ran since the last call, as `train chars_md4`; `resolve` is not counted."""
        calls = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return [call for call in calls if call != "resolve"]

    def is_up_to_date(self, *stages: str) -> bool:
        """Whether DVC finds these stages, by default all, as its lock says."""
        return "up to date" in self.run("dvc", "status", *stages)

    def planned(self) -> list[str]:
        """Return the sorted stages that Snakemake would run."""
        return planned(self.run("snakemake", "--dry-run", "--quiet", "rules"))

    def commit(self) -> None:
        """Commit everything to git."""
        self.run("git", "add", "--all")
        author = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        self.run("git", *author, "commit", "--quiet", "--message", "all")

    def edit_params(self, path: str, value: Any) -> None:
        """Set the key at a dotted path of params.yaml."""
        file = self.root / "params.yaml"
        params = yaml.safe_load(file.read_text())
        *parents, last = path.split(".")
        section = params
        for key in parents:
            section = section[key]
        section[last] = value
        file.write_text(yaml.safe_dump(params, sort_keys=False))

    def rewrite(self, name: str, content: bytes) -> None:
        """Replace a file that may be a read-only link into DVC's cache."""
        path = self.root / name
        path.unlink()
        path.write_bytes(content)

    def keep_only(self, section: str, name: str) -> None:
        """Leave one entry of a section of params.yaml."""
        entries = yaml.safe_load((self.root / "params.yaml").read_text())[section]
        self.edit_params(section, {name: entries[name]})

    def lock(self) -> str:
        """The text of dvc.lock."""
        return (self.root / "dvc.lock").read_text()

    def forget(self, stage: str) -> None:
        """Remove a stage from dvc.lock and DVC's run cache; the next engine runs it, even if its outputs exist."""
        lock = yaml.safe_load(self.lock())
        command = lock["stages"].pop(stage)["cmd"]
        dump_yaml(str(self.root / "dvc.lock"), lock)  # As DVC does: a job keeps the text of other entries.
        for remembered in (self.root / ".dvc/cache/runs").glob("*/*/*"):
            if f"cmd: {command}\n" in remembered.read_text():
                shutil.rmtree(remembered.parent)

    def digest(self, folder: str) -> str:
        """One hash of all the files of a folder, with their names."""
        digest = hashlib.sha256()
        for path in sorted((self.root / folder).rglob("*")):
            if path.is_file() and path.name != ".snakemake_timestamp":
                digest.update(str(path.relative_to(self.root)).encode() + path.read_bytes())
        return digest.hexdigest()

    def twin(self, directory: Path) -> "WorkingCopy":
        """A second copy with all artifacts, caches and memories of the engines."""
        shutil.copytree(self.root, directory / "copy", symlinks=True)
        return WorkingCopy(directory / "copy", directory / "calls", self._commands)

    def with_real_processes(self) -> "WorkingCopy":
        """The same copy, in which every command is a new process, to which signals can be sent."""
        return WorkingCopy(self.root, self._calls, None)


def planned(output: str) -> list[str]:
    """Return the sorted stages that Snakemake would run, from the table `job count` that a dry run ends with."""
    rows = [line.split() for line in output.splitlines()]
    return sorted({row[0] for row in rows if len(row) == 2 and row[1] == "1"} - {"all"})


def fresh_copy(directory: Path, commands: Path | None) -> WorkingCopy:
    """The repository's files, git's history begun anew, the params of these tests and nothing made yet."""
    root = directory / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if not name.startswith(MADE_BY_THE_DEFAULT_SUITE) and (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name, follow_symlinks=False)
    shutil.copy(root / "tests/pipeline/params.yaml", root / "params.yaml")
    copy = WorkingCopy(root, directory / "calls", commands)
    copy.run("git", "init", "--quiet")
    copy.commit()
    return copy


@pytest.fixture(scope="session")
def commands() -> Iterator[Path | None]:
    """A folder of commands that a fork server runs; none where only real processes can be used."""
    if not hasattr(os, "pidfd_open"):  # macOS
        yield None
        return
    with TemporaryDirectory() as folder, fork_server(Path(folder)) as commands:  # A socket's path must be short.
        yield commands


@pytest.fixture(scope="session")
def built(commands: Path | None, make_once: Callable[[str, Callable[[Path], Any]], Path]) -> WorkingCopy:
    """A copy in which `snakemake --cores all` has made everything. Not to be changed: take a `twin`."""
    directory = make_once("built", lambda folder: fresh_copy(folder, commands).run("snakemake", "--cores", "all"))
    return WorkingCopy(directory / "copy", directory / "calls", commands)


@pytest.fixture(scope="session")
def uninterrupted(
    built: WorkingCopy, commands: Path | None, make_once: Callable[[str, Callable[[Path], Any]], Path]
) -> WorkingCopy:
    """One run and what follows from it, with a training long enough to be caught in the middle.

    DVC restores all but the report from what `built` has made of the same params.
    """

    def make(directory: Path) -> None:
        copy = fresh_copy(directory, commands)
        for section, name in {"sources": "pydantic_docs", "datasets": "docs_chars", "runs": RUN}.items():
            copy.keep_only(section, name)
        copy.edit_params("comparisons", [])
        copy.edit_params("zero_shot", {})
        copy.edit_params("samplers", {})
        copy.edit_params("image_quality", {})
        shutil.copytree(built.root / ".dvc/cache", copy.root / ".dvc/cache")
        copy.run("dvc", "repro")  # Restores all stages in one process, where Snakemake starts one for each.
        assert copy.stages_run() == ["report"]

    directory = make_once("uninterrupted", make)
    return WorkingCopy(directory / "copy", directory / "calls", commands)


@pytest.fixture
def untrained(uninterrupted: WorkingCopy, tmp_path: Path) -> Iterator[WorkingCopy]:
    """A copy that has lost the model, the checkpoints and all memory of the training, but of nothing else.

    What follows from the model need not be computed again if the model has the same bytes as before.
    """
    copy = uninterrupted.twin(tmp_path)
    shutil.rmtree(copy.root / "models" / RUN)
    copy.forget(f"train@{RUN}")
    yield copy
    shutil.rmtree(copy.root)


def wait_for_checkpoints(copy: WorkingCopy, engine: "subprocess.Popen[str]") -> None:
    """Wait until the training is well under way: until it has written two more checkpoints."""
    before = newest_checkpoint(copy)
    while newest_checkpoint(copy) < before + 2 * CHECKPOINT_EVERY:
        assert engine.poll() is None, "the engine ended before it could be interrupted"
        time.sleep(0.02)


def newest_checkpoint(copy: WorkingCopy) -> int:
    """Return the step of the newest checkpoint, or 0."""
    checkpoints = copy.root.glob(f".mdpipe/checkpoints/{RUN}-*/step-*.safetensors")
    return max((int(path.stem.removeprefix("step-")) for path in checkpoints), default=0)


PAUSE = """\
import os, sys, time

def pause(event, arguments):
    mark = {marks!r}.get(os.fspath(arguments[1])) if event == "os.rename" else None
    if mark:
        open(mark, "w").close()
        while os.path.exists(mark):
            time.sleep(0.01)

sys.addaudithook(pause)
"""
PAUSED_MAIN = "src/mdpipe/__main__.py"
"""A file that no stage depends on, which every command runs first."""


@contextmanager
def pause_stages(copy: WorkingCopy, outputs: Iterable[str]) -> Iterator[dict[str, Path]]:
    """Have stages wait when they have computed an output and are about to move it into place; yield the marks.

    The mark of an output exists while its stage waits. The stage goes on when the mark is removed, also with the copy.
    """
    marks = {output: copy.root / f"paused-{number}" for number, output in enumerate(outputs)}
    main = copy.root / PAUSED_MAIN
    text = main.read_text()
    main.write_text(PAUSE.format(marks={output: str(mark) for output, mark in marks.items()}) + text)
    yield marks
    main.write_text(text)


@pytest.fixture
def built_copy(built: WorkingCopy, tmp_path: Path) -> Iterator[WorkingCopy]:
    """A copy of one's own in which everything is built_copy."""
    copy = built.twin(tmp_path)
    yield copy
    shutil.rmtree(copy.root)
