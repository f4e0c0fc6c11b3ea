"""Provenance: ensure that dvc.lock records the inputs with which a stage actually ran.

DVC hashes the dependencies of a stage and reads its params after the command has ended, so dvc.lock would record an
edit made while the stage ran. Each stage therefore records its inputs before it loads them and compares them at its
end. If one has changed, the stage fails, DVC writes no lock entry, and the stage stays stale. Only an edit between this
comparison and DVC's reading goes unnoticed.

As in DVC, a file has changed if its size, inode or modification time has. Equal content does not make it unchanged: a
file that was edited and restored may have been read in between.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from mdpipe.params.root import PARAMS_FILE, RESOLVED_PARAMS_FILE, ParamsError, read_params
from mdpipe.processes import DVC_MARK, TORCHRUN_MARK

DVC_FILE, LOCK_FILE = Path("dvc.yaml"), Path("dvc.lock")
RESOLVE = "resolve"
"""The stage that writes the resolved params."""
IGNORE_FILE = Path(".dvcignore")
LOOPS = {"foreach", "matrix"}
VARIABLE = re.compile(r"\$\{([\w.]+)\}")
"""A template of DVC, such as `${item.source}`."""
NAMED_INPUTS = 3
"""Maximum number of changed inputs that the error lists by name."""

FileStamp = tuple[int, int, int]
"""Size, inode and modification time in ns."""


class StaleInputsError(ValueError):
    """An input of the stage changed while the stage ran."""


_watched: list[tuple[str, Sequence[str], dict[str, Any]]] = []
"""The stage, its arguments, and its inputs before it started; empty before `watch_inputs`."""


def watch_inputs(command: str, names: Sequence[str], params: Any) -> None:
    """Record the inputs of the stage that DVC runs in this process; call this before any of them is loaded.

    Nothing is recorded without DVC, which then writes no lock entry, or in training processes of rank 1 and above.

    Args:
        names: Arguments of the stage on the command line: the key of a `foreach`, or one value per axis of a `matrix`.
        params: Content of the stage's params file.
    """
    runs_in_dvc = os.environ.get(DVC_MARK, "").partition("@")[0] == command
    # Without torchrun, RANK comes from another launcher.
    is_main_process = TORCHRUN_MARK not in os.environ or os.environ.get("RANK", "0") == "0"
    if runs_in_dvc and is_main_process:
        _watched[:] = [(command, names, stage_inputs(command, names, params))]


def require_unchanged_inputs() -> None:
    """Raise StaleInputsError if an input of the stage has changed since `watch_inputs`."""
    for command, names, before in _watched:
        try:
            after = stage_inputs(command, names, read_params(stage_params_file()))
            changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        except ParamsError:
            changed = [str(stage_params_file())]
        if changed:
            shown = ", ".join(changed[:NAMED_INPUTS])
            more = f" and {len(changed) - NAMED_INPUTS} more" if len(changed) > NAMED_INPUTS else ""
            stage = os.environ[DVC_MARK]
            raise StaleInputsError(
                f"{stage} is stale: {shown}{more} changed while it ran, so dvc.lock does not record it; checkpoints are"
                f" kept, and `dvc repro {stage}` runs it with the current files"
            )


def stage_inputs(command: str, names: Sequence[str], params: Any) -> dict[str, Any]:
    """Return the current inputs of a stage of dvc.yaml.

    Returns:
        The value of every param, by `FILE: KEY`, and the stamp of every file of every dependency, code and data.
    """
    definition, scope = _definition(command, names, params)
    watched = {file: keys for entry in definition.get("params", []) for file, keys in entry.items()}
    lines = IGNORE_FILE.read_text(encoding="utf-8").splitlines() if IGNORE_FILE.exists() else []
    ignored = [line for line in lines if line and not line.startswith("#")]
    keys = [(file, fill_template(template, scope)) for file, templates in watched.items() for template in templates]
    folders = [Path(fill_template(dependency, scope)) for dependency in definition["deps"]]
    files = sorted({file for folder in folders for file in _files(folder, ignored)})
    values = {f"{file}: {key}": _value_at(key, params) for file, key in keys}
    return values | {str(path): _stamp(path) for path in files}


def stage_params_file() -> Path:
    """Return the params file of a stage: params.resolved.yaml, which dvc.lock records, if DVC runs the stage.

    It is params.yaml for the stage `resolve` and for a stage that a user calls.
    """
    stage = os.environ.get(DVC_MARK, RESOLVE)
    return PARAMS_FILE if stage == RESOLVE else RESOLVED_PARAMS_FILE


def stage_outputs(command: str, names: Sequence[str], params: Any) -> list[Path]:
    """Return the outputs of a stage of dvc.yaml."""
    definition, scope = _definition(command, names, params)
    return [Path(fill_template(out, scope)) for out in listed_outputs(definition)]


def output_patterns() -> list[Path]:
    """Return the outputs of all stages of dvc.yaml with `foreach` or `matrix`, with * for names."""
    stages = yaml.safe_load(DVC_FILE.read_text(encoding="utf-8"))["stages"]
    loops = [entry["do"] if "foreach" in entry else entry for entry in stages.values() if entry.keys() & LOOPS]
    return [Path(VARIABLE.sub("*", out)) for definition in loops for out in listed_outputs(definition)]


def locked_stages() -> dict[str, Any]:
    """Return what dvc.lock records of each stage; nothing if there is no dvc.lock, or it is broken."""
    try:
        return dict(yaml.safe_load(LOCK_FILE.read_bytes())["stages"])
    except (FileNotFoundError, yaml.YAMLError, TypeError, KeyError):
        return {}


def locked_hashes() -> dict[str, str]:
    """Return the hash of every output in dvc.lock, by its path."""
    return {output["path"]: output["md5"] for stage in locked_stages().values() for output in stage.get("outs", [])}


def _definition(command: str, names: Sequence[str], params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a stage of dvc.yaml, and the values of `${key}` and `${item}` if it has `foreach` or `matrix`."""
    entry = yaml.safe_load(DVC_FILE.read_text(encoding="utf-8"))["stages"][command]
    if "matrix" in entry:
        return entry, {"item": dict(zip(entry["matrix"], names, strict=True))}
    if "foreach" in entry:
        (name,) = names
        section = entry["foreach"].strip("${}")
        return entry["do"], {"key": name, "item": _value_at(f"{section}.{name}", params)}
    return entry, {}


def listed_outputs(definition: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of outputs; one with options is the only key of a mapping."""
    listed = (out for key in ("outs", "metrics", "plots") for out in definition.get(key, []))
    yield from (out if isinstance(out, str) else next(iter(out)) for out in listed)


def fill_template(template: str, scope: Mapping[str, Any]) -> str:
    """Return a string of dvc.yaml with its variables replaced by values, such as those of `${item.dataset}`."""
    return VARIABLE.sub(lambda match: str(_value_at(match[1], scope)), template)


def _value_at(key: str, params: Any) -> Any:
    """Return the value at a dotted key, or None if there is none."""
    for part in key.split("."):
        params = params.get(part) if isinstance(params, Mapping) else None
    return params


def _files(path: Path, ignored: Sequence[str]) -> Iterator[Path]:
    """Yield a file, or all files of a folder that DVC does not ignore; the patterns of .dvcignore are plain names."""

    def drop_ignored(names: list[str]) -> list[str]:
        return [name for name in names if not any(fnmatch(name, pattern) for pattern in ignored)]

    if not path.is_dir():
        yield path
        return
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = drop_ignored(subfolders)
        yield from (Path(folder, name) for name in drop_ignored(files))


def _stamp(path: Path) -> FileStamp:
    """Return the stamp of a file; zeros if it is missing."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return status.st_size, status.st_ino, status.st_mtime_ns
