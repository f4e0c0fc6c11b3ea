"""The stages of dvc.yaml with their templates filled in from params.yaml, which wait for which, and what they lack."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import networkx as nx
from dvc.parsing import DataResolver
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml

from mdpipe.params import Params
from mdpipe.pipeline.preflight import missing_paths
from mdpipe.pipeline.provenance import RESOLVE, listed_outputs

ALL = "all"
"""The rule of the Snakefile that makes everything; the default."""


@dataclass(frozen=True)
class Stage:
    """A stage of the graph: its inputs and outputs, and its needs for a scheduler."""

    name: str
    description: str
    dependencies: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int
    gpus: int
    """Number of GPUs, on a machine that has any."""
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


def makers_of(stages: Iterable[Stage]) -> dict[str, Stage]:
    """Return the stage that makes each output."""
    return {output: stage for stage in stages for output in stage.outputs}


def with_dependents(names: set[str], stages: list[Stage]) -> set[str]:
    """Return the named stages and all that depend on them."""
    graph = _dependencies(stages)
    return names.union(*(nx.descendants(graph, name) for name in names & set(graph)))


def needed_stages(targets: Iterable[str], stages: list[Stage]) -> list[Stage]:
    """Return the stages that make the targets, and those that these depend on; without targets, all stages."""
    makers = makers_of(stages) | {stage.name: stage for stage in stages}
    requested = set(map(os.path.relpath, targets))
    if not requested or ALL in requested:
        return stages
    graph, named = _dependencies(stages), {makers[target].name for target in requested & makers.keys()}
    needed = named.union(*(nx.ancestors(graph, name) for name in named))
    return [stage for stage in stages if stage.name in needed]


def unknown_targets(targets: Iterable[str], stages: list[Stage]) -> Iterator[str]:
    """Yield targets that are neither a stage, nor made by one, nor a file."""
    known = {ALL, *(stage.name for stage in stages), *makers_of(stages)}
    yield from (name for name in map(os.path.relpath, targets) if name not in known and not Path(name).exists())


def require_dependencies(params: Params, needed: list[Stage], stages: list[Stage]) -> None:
    """Raise ValueError with a line for each dependency of the needed stages that is missing and that no stage makes."""
    makers, lines = makers_of(stages), list[str]()
    for stage in needed:
        kind, _, name = stage.name.partition("@")
        for path in inputs_of(stage, stages):
            if path in makers or Path(path).exists():
                continue
            if kind == "report" and not params.runs:
                lines.append(
                    "params.yaml has no run to report on; ask for stages by name, as `snakemake encode@DATASET` does"
                )
            elif kind == "download" and (missing := list(missing_paths(params, [name]))):
                lines += missing
            else:
                lines.append(f"{stage.name} depends on {path}, which does not exist; put it back")
    if lines:
        raise ValueError("\n".join(dict.fromkeys(lines)))


def find_leftovers(stage: Stage, stages: list[Stage]) -> Iterator[Path]:
    """Yield files that a stage reads but no stage makes any more, in folders to which several stages write."""
    outputs = [output for other in stages for output in other.outputs]
    for folder in stage.dependencies:
        if folder not in outputs:
            yield from _not_made(Path(folder), outputs)


def is_folder(output: str) -> bool:
    """Return True for a folder: by the convention of dvc.yaml, only names of files have a dot."""
    return not PurePosixPath(output).suffix


def _dependencies(stages: list[Stage]) -> "nx.DiGraph[str]":
    """Return an edge from the name of each stage to those of the stages that wait for it."""
    makers = makers_of(stages)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(stage.name for stage in stages)
    waits = ((path, stage.name) for stage in stages for path in inputs_of(stage, stages))
    graph.add_edges_from((makers[path].name, name) for path, name in waits if path in makers)
    return graph


def _not_made(folder: Path, outputs: list[str]) -> Iterator[Path]:
    if not any(output.startswith(f"{folder}/") for output in outputs):
        return
    for path in sorted(folder.glob("[!.]*")):
        if any(output.startswith(f"{path}/") for output in outputs):
            yield from _not_made(path, outputs)
        elif str(path) not in outputs and (path.is_file() or any(path.iterdir())):
            yield path


def _stage(name: str, entry: dict[str, Any], params: Params) -> Stage:
    def number(value: int | str) -> int:
        """Return a number, or the setting of the run's `hardware` that it names."""
        if isinstance(value, str):
            return int(getattr(params.runs[name.partition("@")[2]].hardware, value.removeprefix("hardware.")))
        return value

    meta = entry["meta"]
    return Stage(
        name=name,
        description=entry["desc"],
        dependencies=tuple(map(_in_one_spelling, entry.get("deps", []))),
        outputs=tuple(map(_in_one_spelling, listed_outputs(entry))),
        **{key: number(meta[key]) for key in ("threads", "gpus", "mem_mb", "runtime")},
        category=meta["category"],
        shown=tuple(meta.get("shown", [])),
    )


def _in_one_spelling(path: str) -> str:
    return str(PurePosixPath(path))  # Snakemake refuses `a//b`, and knows outputs by one spelling.
