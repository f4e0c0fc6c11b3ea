"""Time the training steps of mdpipe and of the official MD4 in turn, on the CPU in float32, and write official.json.

    python results/speed/official/compare.py --official ../md4 --jax-python ../md4-env/bin/python --out OUT.json

docs/speed.md says how to set up the checkout and the Python with JAX. The two sides are jax_step.py and mdpipe_step.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mdpipe.benchmarks.runner import Result, describe_machine, to_table
from mdpipe.benchmarks.settings import SHAPES
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.reporting.markdown import Columns

FOLDER = Path(__file__).resolve().parent
COMMAND = (
    "python results/speed/official/compare.py --official ../md4 --jax-python ../md4-env/bin/python"
    " --out results/speed/official.json"
)
WHAT = (
    "The training step of mdpipe and of the official implementation (google-deepmind/md4), float32, AdamW, MD4 loss in"
    " continuous time, EMA, no dropout, no clipping. The implementations are timed in turn, each in a process with one"
    " core per thread; a number per round, the mean of its steps, after 2 steps of warm-up."
)
VERSIONS = """
import json, md4.models.diffusion.md4
from importlib.metadata import version
print(json.dumps({name: version(name) for name in ("jax", "jaxlib", "flax", "optax")}))
"""


@dataclass(frozen=True)
class Case:
    """What all implementations train; each takes `steps` steps in a round."""

    shape: str
    batch: int
    threads: int
    rounds: int
    steps: int


CASES = (Case("text8-11m", 8, 1, 4, 1), Case("text8-11m", 8, 2, 5, 1), Case("cifar10-small", 4, 1, 4, 2))
TINY = (Case("cifar10-small", 1, 1, 2, 1),)


@dataclass(frozen=True)
class Implementation:
    """A variant of one of the sides; only the official one has flags of XLA."""

    script: str
    compile: bool = False
    xla_flags: str | None = None


IMPLEMENTATIONS = {
    "official": Implementation("jax_step.py", xla_flags=""),
    "official, without XLA's thunk runtime": Implementation(
        "jax_step.py", xla_flags="--xla_cpu_use_thunk_runtime=false"
    ),
    "mdpipe": Implementation("mdpipe_step.py"),
    "mdpipe, compiled": Implementation("mdpipe_step.py", compile=True),
}
OFFICIAL = [name for name, implementation in IMPLEMENTATIONS.items() if implementation.script == "jax_step.py"]


@dataclass(frozen=True)
class OfficialCode:
    """A checkout of the official repository, and a Python with what it imports."""

    checkout: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process that imports the official code."""
        return {**os.environ, "PYTHONPATH": str(self.checkout.resolve()), "JAX_PLATFORMS": "cpu"}

    def describe(self) -> Result:
        """Return commit and versions, after an import of the official model.

        Raises:
            ValueError: the checkout, the Python or a package is missing.
        """
        if not (self.checkout / "md4/models/diffusion/md4.py").exists():
            raise ValueError(
                f"--official must be a checkout of google-deepmind/md4, not {str(self.checkout)!r}, which has no"
                " md4/models/diffusion/md4.py. Clone https://github.com/google-deepmind/md4"
            )
        if not self.python.exists():
            raise ValueError(
                f"--jax-python must be the Python of an environment with JAX; {str(self.python)!r} does not exist."
                " docs/speed.md says how to set it up"
            )
        command = [str(self.python), "-c", VERSIONS]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(
                f"--jax-python must have what the official code imports: {done.stderr.strip().splitlines()[-1]}."
                f" Run {self.python} -m pip install -r results/speed/official/requirements.txt"
            )
        # A copy without .git has no commit, even inside another repository.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(self.checkout.resolve().parent)}
        command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        git = subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True, check=False)
        return {"repository": "google-deepmind/md4", "commit": git.stdout.strip() or None, **json.loads(done.stdout)}


def start(implementation: Implementation, code: OfficialCode, cache: str) -> subprocess.Popen[str]:
    """Start the process of an implementation, on the cores of this one."""
    is_official = implementation.script == "jax_step.py"
    environment = code.environment if is_official else dict(os.environ)
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "TORCHINDUCTOR_CACHE_DIR": cache}
    environment["XLA_FLAGS"] = implementation.xla_flags or ""
    environment.pop("OMP_NUM_THREADS", None)
    command = [str(code.python) if is_official else sys.executable, str(FOLDER / implementation.script)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def ask(name: str, process: subprocess.Popen[str], request: object) -> Result:
    """Send a line of JSON to a process and return its answer.

    Raises:
        ValueError: the process has ended.
    """
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    if not (line := process.stdout.readline()):
        raise ValueError(f"{name} failed; its error is above")
    answer: Result = json.loads(line)
    return answer


def measure(case: Case, code: OfficialCode, cores: Sequence[int]) -> list[Result]:
    """Start all implementations, one after the other, then time their steps in turn; return a row for each."""
    os.sched_setaffinity(0, cores[: case.threads])  # The processes inherit it; XLA has a thread per core.
    processes, setups = {}, {}
    rounds: dict[str, list[Result]] = {name: [] for name in IMPLEMENTATIONS}
    with tempfile.TemporaryDirectory() as cache, ExitStack() as stack:
        for name, implementation in IMPLEMENTATIONS.items():
            processes[name] = stack.enter_context(start(implementation, code, cache))
            job = {"shape": case.shape, "batch": case.batch, "threads": case.threads, "compile": implementation.compile}
            setups[name] = ask(name, processes[name], job)
        for number in range(case.rounds):
            for name in list(IMPLEMENTATIONS)[:: 1 if number % 2 == 0 else -1]:
                rounds[name].append(ask(name, processes[name], case.steps))
    tokens = case.batch * SHAPES[case.shape].length
    rows = []
    for name, implementation in IMPLEMENTATIONS.items():
        seconds = [answer["seconds_per_step"] for answer in rounds[name]]
        cpu_seconds = [answer["cpu_seconds_per_step"] for answer in rounds[name]]
        row = {
            "shape": case.shape,
            "batch": case.batch,
            "threads": case.threads,
            "implementation": name,
            "parameters": setups[name]["parameters"],
            "tokens_per_step": tokens,
            "tokens_per_second": tokens / median(seconds),
            "tokens_per_cpu_second": tokens / median(cpu_seconds),
            "seconds_per_step": seconds,
            "cpu_seconds_per_step": cpu_seconds,
            "compile_seconds": setups[name]["compile_seconds"],
            "xla_flags": implementation.xla_flags,
            "peak_mem_mib": rounds[name][-1]["peak_mem_mib"],
        }
        rows.append(row)
        sys.stdout.write(f"{case.shape}, {name}: {rounds[name][-1]['loss']:.4f} bits per token in the last step\n")
    return rows


def to_ratios(rows: Sequence[Result]) -> list[Result]:
    """Return how many times as fast as the official implementation ours are, from the rows of one case."""
    ratios = []
    by_name = {row["implementation"]: row for row in rows}
    for name in [name for name in by_name if name not in OFFICIAL]:
        row = by_name[name]
        ratio = {**{key: row[key] for key in ("shape", "batch", "threads")}, "of": name}
        for clock, key in (("wall", "seconds_per_step"), ("cpu", "cpu_seconds_per_step")):
            fastest = min(OFFICIAL, key=lambda official: median(by_name[official][key]))
            for to, official in (("official", "official"), ("fastest_official", fastest)):
                base = by_name[official][key]
                pairs = [theirs / ours for theirs, ours in zip(base, row[key], strict=True)]
                of_medians = median(base) / median(row[key])
                ratio[f"{clock}_to_{to}"] = {"of_medians": of_medians, "min": min(pairs), "max": max(pairs)}
        ratios.append(ratio)
    return ratios


COLUMNS: Columns = {
    "shape": lambda row: row["shape"],
    "batch": lambda row: str(row["batch"]),
    "threads": lambda row: str(row["threads"]),
    "implementation": lambda row: row["implementation"],
    "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}",
    "tokens per CPU second": lambda row: f"{row['tokens_per_cpu_second']:,.0f}",
    "compiling, s": lambda row: "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.0f}",
    "peak MiB": lambda row: f"{row['peak_mem_mib']:,.0f}",
}


def main() -> None:
    """Read the command line, measure all cases and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="checkout of google-deepmind/md4")
    parser.add_argument("--jax-python", type=Path, required=True, help="Python of an environment with JAX")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--tiny", action="store_true", help="rehearse with one tiny case, whose numbers mean nothing")
    options = parser.parse_args()
    cases, cores = TINY if options.tiny else CASES, sorted(os.sched_getaffinity(0))
    threads = max(case.threads for case in cases)
    try:
        if len(cores) < threads:
            raise ValueError(f"the comparison needs {threads} cores, and this process may run on {len(cores)}")
        code = OfficialCode(options.official, options.jax_python)
        official = code.describe()
        results = [measure(case, code, cores) for case in cases]
    except ValueError as error:
        parser.error(str(error))
    rows = [row for case_rows in results for row in case_rows]
    document = {
        "what": WHAT,
        "command": COMMAND + (" --tiny" if options.tiny else ""),
        "machine": describe_machine("cpu", threads),
        "official": official,
        "rows": rows,
        "ratios": [ratio for case_rows in results for ratio in to_ratios(case_rows)],
    }
    atomic_write(options.out, (json.dumps(document, indent=1) + "\n").encode())
    sys.stdout.write(to_table(rows, COLUMNS))


if __name__ == "__main__":
    main()
