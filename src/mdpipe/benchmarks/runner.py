"""Run benchmarks, each in a process that does nothing else, and show what they measured."""

import multiprocessing
import os
import platform
import signal
import subprocess
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import ValidationError

from mdpipe.data.artifacts.files import first_problem
from mdpipe.params.training import HardwareConfig
from mdpipe.processes import exit_with_parent
from mdpipe.reporting.markdown import Columns, format_rows, markdown_table

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = dict[str, Any]
PRECISIONS: tuple[str, ...] = get_args(HardwareConfig.model_fields["precision"].annotation)
PACKAGES = ("mdpipe", "torch", "numpy")
"""Packages that speeds depend on."""
POLL_SECONDS, EXIT_SECONDS = 0.1, 10.0
"""Time between two looks at a process, and time that it has to end by itself after its last result."""


@dataclass(frozen=True)
class Benchmark:
    """Settings of a measurement; what a command measures is a list of these."""

    title: ClassVar[str]
    """Name of a measurement in error messages, as a format string of the settings."""
    heading: ClassVar[str]
    """Heading of the page."""
    columns: ClassVar[Columns]
    """Columns of the table."""
    choices: ClassVar[Mapping[str, Collection[str]]] = {}
    """What settings may be."""
    has_own_process: ClassVar[bool] = True
    """False for a benchmark that starts its own processes, or does not measure memory."""

    def __post_init__(self) -> None:
        for name, choices in self.choices.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"--{name} must be one of {', '.join(choices)}, not {value!r}")

    def measure(self) -> Result:
        """Return what was measured, without the settings."""
        raise NotImplementedError

    @classmethod
    def compare(cls, results: Sequence[Result]) -> list[Result]:
        """Add what only all results together say."""
        return list(results)

    @classmethod
    def describe(cls, first: Result, table: str) -> str:
        """Return the page's text: the table and what a reader needs to judge it, given the first result."""
        raise NotImplementedError


def run(benchmarks: Sequence[Benchmark]) -> list[Result]:
    """Return settings and measurement of every benchmark; they are of one class.

    Raises:
        ValueError: one was not measured, for example because memory ran out.
    """
    results = []
    for benchmark in benchmarks:
        settings = asdict(benchmark)
        try:
            measured = run_alone(benchmark.measure) if benchmark.has_own_process else benchmark.measure()
        except ValueError as error:
            raise ValueError(f"{benchmark.title.format_map(settings)} was not measured: {error}") from error
        results.append({**settings, **measured})
    return benchmarks[0].compare(results)


def run_alone(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call a function in a new process, since memory is only known of a whole process; options as of `stream_alone`."""
    (result,) = stream_alone(function, *arguments, **options)
    return result


def stream_alone(
    function: Callable[..., Result | Iterator[Result]],
    *arguments: Any,
    limit: float = inf,
    watch: Callable[[int], object] | None = None,
) -> Iterator[Result]:
    """Yield the results of a function that is called in a new process, whose group of processes ends with it.

    Args:
        function: returns or yields results; importable, as are its arguments.
        *arguments: of the function.
        limit: seconds after which the group is killed.
        watch: called with the process's id about every tenth of a second.

    Raises:
        ValueError: the function raised an error, or its process was killed.
        TimeoutError: it took more than `limit` seconds.
    """
    context, end = multiprocessing.get_context("spawn"), monotonic() + limit
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        while True:
            if monotonic() > end:
                raise TimeoutError
            if watch is not None and process.pid is not None:
                watch(process.pid)
            if receiver.poll(POLL_SECONDS):
                result, error = receiver.recv()
                if error is not None:
                    raise ValueError(error)
                if result is None:
                    process.join(EXIT_SECONDS)
                    return
                yield result
            elif not process.is_alive():
                raise EOFError
    except EOFError:
        process.join()
        raise ValueError(f"its process ended with status {process.exitcode}; perhaps memory ran out") from None
    finally:
        with suppress(ProcessLookupError):  # It may have had no group yet.
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


def _call(sender: "Connection", function: Callable[..., Result | Iterator[Result]], arguments: Sequence[Any]) -> None:
    """Send pairs: every result and None, then twice None; or None and what went wrong."""
    os.setpgrp()
    exit_with_parent()
    try:
        returned = function(*arguments)
        for result in [returned] if isinstance(returned, dict) else returned:
            sender.send((result, None))
        sender.send((None, None))
    except Exception as error:
        sender.send((None, describe_error(error)))
        if not isinstance(error, ValueError):  # The message of a ValueError says enough.
            traceback.print_exc()


def describe_error(error: Exception) -> str:
    """Return the type and the first line of an error, with the key that pydantic's are about."""
    text = first_problem(error) if isinstance(error, ValidationError) else str(error)
    kind = "ValueError" if isinstance(error, ValidationError) else type(error).__name__
    return f"{kind}: {text.strip().partition(chr(10))[0][:500]}"


def to_table(results: Sequence[Result], columns: Columns) -> str:
    """Return a Markdown table with one row for each result. The first column says what was measured: a text."""
    return markdown_table([*columns], format_rows(results, columns), [number > 0 for number in range(len(columns))])


def to_markdown(kind: type[Benchmark], machine: Result, command: str, results: Sequence[Result]) -> str:
    """Return a page with the table and what a reader needs to judge and repeat it."""
    text = kind.describe(results[0], to_table(results, kind.columns))
    return f"# {kind.heading}\n\n    {command}\n\n{format_machine(machine)}\n{text}"


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
