"""Run benchmarks, each in a process that does nothing else, and show what they measured."""

import json
import multiprocessing
import os
import platform
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mdpipe.data.artifacts.files import atomic_write, first_problem
from mdpipe.pipeline.provenance import code_commit
from mdpipe.processes import exit_with_parent
from mdpipe.reporting.markdown import Columns, format_rows, markdown_table

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = dict[str, Any]
PACKAGES = ("mdpipe", "torch", "numpy")
"""Packages that speeds depend on."""
POLL_SECONDS, EXIT_SECONDS = 0.1, 10.0
"""Time between two looks at a process, and time that it has to end by itself after its last result."""


@dataclass(frozen=True)
class Benchmark:
    """A command of `mdpipe bench`: its measurement, and how the results are shown."""

    measure: Callable[[Any], Result]
    """Returns the measurements for the given `Settings`, without the settings."""
    heading: str
    """Heading of the page."""
    title: str
    """Name of a measurement in error messages, as a format string of the settings."""
    columns: Columns
    page: str
    """Text of the Markdown page, by which a reader interprets the results: a format string of the first and of
    `table`."""
    compare: Callable[[Sequence[Result]], Sequence[Result]] = list
    """Adds columns that are computed from all results."""
    files: Mapping[str, Callable[[Sequence[Result]], str]] = field(default_factory=dict)
    """Content of further files, by suffix."""
    has_own_process: bool = True
    """False for a benchmark that starts its own processes, or does not measure memory."""
    device: str = "cpu"
    """Device if none can be set: cpu, or "auto" for a GPU where torch finds one."""


def measure_and_write(benchmark: Benchmark, settings: Sequence[Any], command: str, out: Path | None) -> tuple[str, str]:
    """Measure with each of the settings, write OUT.json, OUT.md and further files, and return the JSON and the table.

    Raises:
        ValueError: A measurement failed, for example because memory ran out, or there is no GPU.
    """
    device = _find_device(getattr(settings[0], "device", benchmark.device))
    results = run(benchmark, settings)
    # Before files are written: it names the commit, which is marked as changed once another file in git is.
    machine = describe_machine(device, getattr(settings[0], "threads", 1))
    document = to_json({"command": command, "machine": machine, "results": results})
    table = to_table(results, benchmark.columns)
    head = f"# {benchmark.heading}\n\n    {command}\n\n{format_machine(machine)}\n"
    page = head + benchmark.page.format(**results[0], table=table)
    if out is not None:
        files = {"json": document, "md": page} | {name: make(results) for name, make in benchmark.files.items()}
        for suffix, content in files.items():
            atomic_write(out.with_name(f"{out.name}.{suffix}"), content.encode())
    return document, table


def _find_device(wanted: str) -> str:
    if wanted == "cpu":
        return wanted
    from mdpipe.networks.runtime import compute_device  # Not above: a benchmark without torch should not load it.

    device = compute_device().type
    if wanted == "cuda" and device != "cuda":
        raise ValueError("--device cuda: torch finds no GPU on this machine; take cpu")
    return device


def run(benchmark: Benchmark, settings: Sequence[Any]) -> list[Result]:
    """Return settings and measurement of each.

    Raises:
        ValueError: One was not measured.
    """
    results = []
    for one in settings:
        try:
            measured = run_alone(benchmark.measure, one) if benchmark.has_own_process else benchmark.measure(one)
        except ValueError as error:
            raise ValueError(f"{benchmark.title.format_map(asdict(one))} was not measured: {error}") from error
        results.append({**asdict(one), **measured})
    return list(benchmark.compare(results))


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
        function: Returns or yields results; importable, as are its arguments.
        *arguments: Arguments of the function.
        limit: Seconds after which the group is killed.
        watch: Called with the process's id about every tenth of a second.

    Raises:
        ValueError: The function raised an error, or its process was killed.
        TimeoutError: It took more than `limit` seconds.
    """
    context, end = multiprocessing.get_context("spawn"), monotonic() + limit
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_results, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        while True:
            if monotonic() > end:
                raise TimeoutError
            if watch is not None and process.pid is not None:
                watch(process.pid)
            if receiver.poll(POLL_SECONDS):
                message = receiver.recv()
                if isinstance(message, str):
                    raise ValueError(message)
                if message is None:
                    process.join(EXIT_SECONDS)
                    return
                yield message
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


def _send_results(
    sender: "Connection", function: Callable[..., Result | Iterator[Result]], arguments: Sequence[Any]
) -> None:
    """Send every result and then None, or a text that says what went wrong."""
    os.setpgrp()
    exit_with_parent()
    try:
        returned = function(*arguments)
        for result in [returned] if isinstance(returned, dict) else returned:
            sender.send(result)
        sender.send(None)
    except Exception as error:
        sender.send(describe_error(error))
        if not isinstance(error, ValueError):  # The message of a ValueError says enough.
            traceback.print_exc()


def describe_error(error: Exception) -> str:
    """Return the type and the first line of an error, with the key that pydantic's are about."""
    text = first_problem(error) if isinstance(error, ValidationError) else str(error)
    kind = "ValueError" if isinstance(error, ValidationError) else type(error).__name__
    return f"{kind}: {text.strip().partition(chr(10))[0][:500]}"


def to_json(document: Result) -> str:
    """Return the content of a JSON file, with its keys in their order."""
    return json.dumps(document, indent=2) + "\n"


def to_table(results: Sequence[Result], columns: Columns) -> str:
    """Return a Markdown table with one row for each result. The first column says what was measured: a text."""
    return markdown_table([*columns], format_rows(results, columns), [number > 0 for number in range(len(columns))])


def describe_machine(device: str, threads: int) -> Result:
    """Return hardware, versions and commit, without anything that identifies one particular machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        **(_describe_gpu() if device == "cuda" else {"device": "cpu"}),
        "threads": threads,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "commit": code_commit(),
    }


def format_machine(machine: Result) -> str:
    """Return the description of a machine in two lines, and one for its GPU."""
    gpu = f"\nCUDA {machine['cuda']}, GPU memory {machine['gpu_memory_gib']} GiB." if "cuda" in machine else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; on {machine['device']},"
        f" {machine['threads']} threads;\ntorch {machine['torch']}, Python {machine['python']};"
        f" commit {machine['commit']}.{gpu}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _describe_gpu() -> Result:
    import torch

    return {
        "device": torch.cuda.get_device_name(),
        "gpu_memory_gib": round(torch.cuda.get_device_properties().total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _version(package: str) -> str | None:
    """Return the version of an installed package; None for one that runs from a checkout."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
