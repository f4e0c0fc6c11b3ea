"""The stages of dvc.yaml with their templates filled in from params.yaml, as the Snakefile needs them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dvc.parsing import DataResolver
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml

from mdpipe.params import Params
from mdpipe.pipeline.provenance import RESOLVE


@dataclass(frozen=True)
class Stage:
    """One stage of the graph: what it reads and makes, and what a scheduler should know of it."""

    name: str
    description: str
    dependencies: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int
    gpus: int
    """Where the machine has any."""
    mem_mb: int
    runtime: int
    category: str
    shown: tuple[str, ...]
    """Patterns of the files of a folder that `snakemake --report` shows."""


def read_stages(repo: Repo, params: Params) -> list[Stage]:
    """Resolve dvc.yaml; the stages come in its order, and those of one kind in the order of params.yaml.

    The stage that resolves params is not among them: the main process runs it before it plans.

    dvc.lock is not read: DVC writes it in place, so it may be incomplete while stages run.
    """
    definition = load_yaml(str(Path(repo.root_dir) / "dvc.yaml"))
    resolved = DataResolver(repo, repo.root_dir, definition).resolve()
    return [_stage(name, entry, params) for name, entry in resolved["stages"].items() if name != RESOLVE]


def inputs_of(stage: Stage, stages: list[Stage]) -> list[str]:
    """Return the outputs of other stages that a stage waits for, and its other dependencies unchanged.

    A dependency on a folder that several stages write into (`metrics`) means all of their outputs; one on a file in an
    output means that output.
    """
    made = [output for other in stages if other != stage for output in other.outputs]
    found: list[str] = []
    for dependency in stage.dependencies:
        inside = [output for output in made if f"{output}/".startswith(f"{dependency}/")]
        around = [output for output in made if f"{dependency}/".startswith(f"{output}/")]
        found += inside or around or [dependency]
    return found


def with_dependents(names: set[str], stages: list[Stage]) -> set[str]:
    """Return the named stages and all that depend on them."""
    found, added = set[str](), names
    inputs = {stage.name: inputs_of(stage, stages) for stage in stages}
    while added:
        found |= added
        made = {output for stage in stages if stage.name in added for output in stage.outputs}
        added = {name for name, needed in inputs.items() if name not in found and not made.isdisjoint(needed)}
    return found


def is_folder(output: str) -> bool:
    """Return True for a folder: by the convention of dvc.yaml, only names of files have a dot."""
    return not PurePosixPath(output).suffix


def _stage(name: str, entry: dict[str, Any], params: Params) -> Stage:
    def number(key: str) -> int:
        """Return a number, or the setting of the run's `hardware` that it names."""
        value = entry["meta"][key]
        if isinstance(value, str):
            return int(getattr(params.runs[name.partition("@")[2]].hardware, value.removeprefix("hardware.")))
        return int(value)

    outputs = [path for key in ("outs", "metrics", "plots") for path in _paths(entry.get(key, []))]
    meta = entry["meta"]
    return Stage(
        name=name,
        description=entry["desc"],
        dependencies=tuple(_paths(entry.get("deps", []))),
        outputs=tuple(outputs),
        threads=number("threads"),
        gpus=number("gpus"),
        mem_mb=number("mem_mb"),
        runtime=number("runtime"),
        category=meta["category"],
        shown=tuple(meta.get("shown", [])),
    )


def _paths(entries: list[Any]) -> Iterator[str]:
    """Yield the paths of entries, which are paths or one-key mappings from a path to its options."""
    for entry in entries:
        path = entry if isinstance(entry, str) else next(iter(entry))
        yield str(PurePosixPath(path))  # Snakemake refuses `a//b`, and knows outputs by one spelling.
