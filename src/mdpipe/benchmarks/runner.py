"""Run benchmarks, each in a process that does nothing else, and show what they measured.

A benchmark is a dataclass of settings with a `title` and a method `measure`. `python -m mdpipe.benchmarks.runner
MODULE:CLASS` reads the settings from the standard input and writes the measurement to the standard output, as JSON.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from mdpipe.data.artifacts.files import first_problem
from mdpipe.params.training import HardwareConfig
from mdpipe.reporting.markdown import markdown_table

Result = dict[str, Any]
Columns = dict[str, Callable[[Result], str]]
"""For each heading the cell of a result; the first column says what was measured and is aligned to the left."""

PRECISIONS: tuple[str, ...] = get_args(HardwareConfig.model_fields["precision"].annotation)

PACKAGES = ("mdpipe", "torch", "numpy")
"""Packages that speeds depend on."""


@dataclass(frozen=True)
class Benchmark:
    """Settings of a measurement; what a command measures is a list of these."""

    @property
    def title(self) -> str:
        """Name the measurement in error messages."""
        raise NotImplementedError

    def measure(self) -> Result:
        """Return what was measured, without the settings."""
        raise NotImplementedError

    def require_choice(self, name: str, choices: Collection[str]) -> None:
        """Raise ValueError if the setting is not one of the choices."""
        if (value := getattr(self, name)) not in choices:
            raise ValueError(f"--{name} must be one of {', '.join(choices)}, not {value!r}")

    def require_positive(self, *names: str) -> None:
        """Raise ValueError if one of the settings is below 1."""
        for name in names:
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def run_in_subprocess(benchmark: Benchmark) -> Result:
    """Measure in a new process, since memory is only known of a whole process; return settings and measurement.

    Raises:
        ValueError: the process failed, or was killed, for example because memory ran out.
    """
    settings, kind = asdict(benchmark), type(benchmark)
    command = [sys.executable, "-m", __name__, f"{kind.__module__}:{kind.__name__}"]
    done = subprocess.run(command, input=json.dumps(settings), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or "the process was killed; perhaps memory ran out"
        raise ValueError(f"{benchmark.title} was not measured: {reason}")
    return {**settings, **json.loads(done.stdout)}


def to_table(results: Sequence[Result], columns: Columns) -> str:
    """Return a Markdown table with one row for each result."""
    rows = [[cell(result) for cell in columns.values()] for result in results]
    return markdown_table([*columns], rows, [number > 0 for number in range(len(columns))])


def format_error(value: float, stderr: float | None) -> str:
    """Return a number with its standard error."""
    return f"{value:,.1f}" if stderr is None else f"{value:,.1f} ± {stderr:,.1f}"


def describe_machine(device: str, threads: int) -> Result:
    """Return hardware, versions and commit, without anything that identifies one particular machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": _gpu() if device == "cuda" else "cpu",
        "threads": threads,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def format_machine(machine: Result) -> str:
    """Return the description of a machine in two lines."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; on {machine['device']},"
        f" {machine['threads']} threads;\ntorch {machine['torch']}, Python {machine['python']};"
        f" commit {machine['commit']}."
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpu() -> str:
    import torch  # Not above: the runner of a benchmark without torch should not load it.

    return torch.cuda.get_device_name()


def _version(package: str) -> str | None:
    """Return the version of an installed package; None for one that runs from a checkout."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the working tree that has this file, marked if its code has changed; None without git.

    Measurements write tables that are under version control, and thereby change the tree but not what was measured.
    """
    code = Path(__file__).parents[2]
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=code, capture_output=True, text=True, check=False)
        changes = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "."], cwd=code, check=False)
    except OSError:
        return None
    if done.returncode:
        return None
    return done.stdout.strip() + ("-dirty" if changes.returncode else "")


def main() -> None:
    """Measure the benchmark that the command line names."""
    module, _, name = sys.argv[1].partition(":")
    benchmark: Benchmark = getattr(import_module(module), name)(**json.load(sys.stdin))
    try:
        result = benchmark.measure()
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
