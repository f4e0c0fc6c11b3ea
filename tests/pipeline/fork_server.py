"""A process that has loaded the libraries of the engines and stages, and forks for each command that they start.

Loading them takes most of the time of an engine's or a stage's process here. The code of the repository is not loaded
before the fork: a command runs the code of the working copy that it is started in. What starts a command waits for a
small client, which passes on its files and the exit status, but no signals; tests that send any use real processes.

`python -m tests.pipeline.fork_server SOCKET` serves until its standard input ends.
"""

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    "altair",
    "dvc.cli",
    "dvc.commands.experiments.run",
    "dvc.repo",
    "dvc.repo.experiments.run",
    "dvc.stage.cache",
    "dvc_data.index",
    "networkx",
    "PIL.Image",
    "polars",
    "pydantic",
    "safetensors.torch",
    "sentencepiece",
    "sklearn.datasets",
    "snakemake.cli",
    "snakemake.workflow",
    "torch",
    "typer",
    "vl_convert",
)
BUNDLE = "import vl_convert; print(end=vl_convert.javascript_bundle())"
"""The scripts of the page are always the same, and take seconds to be put together."""
COMMANDS = {"dvc": "dvc", "mdpipe": "mdpipe", "snakemake": "snakemake", "python": "workflow.job"}
"""The module that a command runs; of `python`, only `python -m workflow.job` is forked."""

CLIENT = """\
#!{python} -IS
import json, os, socket, sys
name, arguments = {name!r}, sys.argv[1:]
if name == "python":
    if arguments[:2] != ["-m", "workflow.job"]:
        os.execv({python!r}, [{python!r}, *arguments])
    arguments = arguments[2:]
request = dict(module={module!r}, arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"x"], [0, 1, 2])
    server.sendall(json.dumps(request).encode() + b"\\n")
    status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


@contextmanager
def fork_server(folder: Path) -> Iterator[Path]:
    """Start the server; yield a folder of commands that it runs."""
    address = folder / "socket"
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(address)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    commands = folder / "bin"
    commands.mkdir()
    for name, module in COMMANDS.items():
        command = commands / name
        command.write_text(CLIENT.format(python=sys.executable, name=name, module=module, address=str(address)))
        command.chmod(command.stat().st_mode | stat.S_IEXEC)
    yield commands
    process.stdin.close()
    process.wait()


def serve(address: str) -> None:
    """Fork a process for each request, and send its exit status when it has ended."""
    running: dict[int, tuple[BaseProcess, socket.socket]] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select([listener, sys.stdin, *running], [], [])[0]):
            for event in ready:
                if event is listener:
                    connection, _ = listener.accept()
                    process = _start(connection)
                    running[os.pidfd_open(process.pid)] = process, connection
                else:
                    process, connection = running.pop(event)
                    process.join()
                    with connection, suppress(BrokenPipeError):
                        connection.sendall(bytes([process.exitcode % 256]))
                    os.close(event)


def _start(connection: socket.socket) -> BaseProcess:
    """Fork a process for the request that a client sends."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.readline())
    process = multiprocessing.get_context("fork").Process(target=_run, args=(files,), kwargs=request)
    process.start()
    for file in files:
        os.close(file)
    return process


def _run(files: list[int], module: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Become the requested command."""
    for file, opened in enumerate(files):
        os.dup2(opened, file)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    search = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*search, *(path for path in sys.path if str(ROOT) not in (path, str(Path(path).parent)))]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    # In another process: threads of its JavaScript engine, once started, would be missing in forked ones.
    bundle = subprocess.run([sys.executable, "-c", BUNDLE], capture_output=True, text=True, check=True).stdout
    sys.modules["vl_convert"].javascript_bundle = lambda: bundle
    gc.collect()
    gc.freeze()  # So that no collection writes to memory that the processes share.
    serve(sys.argv[1])
