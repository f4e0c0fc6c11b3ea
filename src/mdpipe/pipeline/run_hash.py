"""Run hashes: unfinished work is resumed only if nothing that it depends on has changed.

A run hash is of settings, code and data. It is part of the name of a folder with checkpoints or finished shards.
"""

import ast
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import mdpipe
from mdpipe.data.artifacts.files import hash_file
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import fill_template, require_unchanged_inputs

if TYPE_CHECKING:
    from mdpipe.data.dataset import EncodedDataset


def hash_source(params: Params, source: str) -> str:
    """Hash a source's settings, the code that reads it, and the names, sizes and times of its files."""
    settings = params.sources[source].resolve()
    return _hash({"settings": settings.model_dump(mode="json"), "files": _list_files(Path(settings.path))}, "download")


def hash_encoding(params: Params, dataset: str) -> str:
    """Hash seed, settings, code and tokenizer, and the names, sizes and times of the raw files."""
    settings = params.datasets[dataset]
    raw = _list_files(paths.raw(settings.source))
    content = {"seed": params.seed, "dataset": settings.model_dump(mode="json"), "raw": raw}
    return _hash(content, "encode", sorted(paths.tokenizer(dataset).glob("*")))


def hash_training(params: Params, run: str, dataset: "EncodedDataset") -> str:
    """Hash the seeds, the run's settings, the training data, the code and torch's version."""
    import torch  # Not above: encoding does not load it.

    settings = params.runs[run].model_dump(exclude={"sample", "evaluate", "seeds"})
    # The interval of checkpoints does not change the weights: a run may resume with another one.
    for key in ("save_every", "save_total_limit"):
        del settings["train"][key]
    # A run may also resume with another number of processes: only the order of sums, so the last digits, changes.
    for key in ("num_processes", "strategy", "gradient_accumulation_steps"):
        del settings["hardware"][key]
    content = {"seed": params.seed, "run": settings, "torch": torch.__version__}
    return _hash(content, "train", dataset.files, scope={"item": settings})


@contextmanager
def unfinished_work(stage: str, name: str, run_hash: str) -> Iterator[Path]:
    """Give a stage the folder of its finished shards; remove it when the stage ends and no input has changed."""
    yield paths.work_dir(stage, name, run_hash)
    require_unchanged_inputs()
    for finished in paths.work_dirs(stage, name):
        shutil.rmtree(finished)


def _hash(content: dict[str, Any], stage: str, files: Iterable[Path] = (), scope: Mapping[str, Any] = {}) -> str:
    """Hash JSON content, the code that dvc.yaml lists for a stage, and the bytes of the files.

    Raises:
        ValueError: The code of the run's network or of diffusion imports a file that dvc.yaml does not list.
        StaleInputsError: An input of the stage has changed since it started. The code in memory is then not the code of
            the files, and what the stage makes must not be taken for theirs.
    """
    root = Path(mdpipe.__file__).parents[2]
    entry = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["do"]
    parts = [root / fill_template(part, scope) for part in entry["deps"] if part.startswith("src/")]
    modules = sorted(path for part in parts for path in ([part] if part.is_file() else part.rglob("*.py")))
    _require_listed_imports(modules, root)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for path in (*modules, *files):
        digest.update(bytes.fromhex(hash_file(path)))
    require_unchanged_inputs()
    return digest.hexdigest()[: paths.HASH_DIGITS]


def _require_listed_imports(modules: Sequence[Path], root: Path) -> None:
    """Require that what files of networks and diffusion import of this repository is listed.

    Users may add such files, and edits of what only these import would go unnoticed.
    """
    diffusion = root / "src/mdpipe/diffusion"
    for file in (path for path in modules if path.parent.name == "networks" or path.is_relative_to(diffusion)):
        for imported in _imported_files(file, [root / "src", root]):
            is_package_of_listed = imported.name == "__init__.py" and any(
                module.is_relative_to(imported.parent) for module in modules
            )
            # params.resolved.yaml has what a run's settings are, and `resolve` depends on all of their code.
            if imported in modules or is_package_of_listed or imported.parent.name == "params":
                continue
            place = diffusion.relative_to(root) if file.is_relative_to(diffusion) else file.name
            raise ValueError(
                f"{file.name} imports {imported.relative_to(root)}, which the run does not depend on: move the code to"
                f" {place}, or add that file to `deps` of train, sample and evaluate in dvc.yaml, which makes all"
                " runs stale"
            )


def _imported_files(file: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the files below the roots that a module imports anywhere, with those of the packages that they are in.

    Files that cannot be parsed import nothing: no run can use them.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return
    for node in ast.walk(tree):
        folders, prefix = roots, ""
        if isinstance(node, ast.ImportFrom):
            folders = [file.parents[node.level - 1]] if node.level else roots
            prefix = f"{node.module}." if node.module else ""
        elif not isinstance(node, ast.Import):
            continue
        names = [f"{prefix}{alias.name}".split(".") for alias in node.names]
        modules = [
            folder.joinpath(*name[:end]) for folder in folders for name in names for end in range(1, 1 + len(name))
        ]
        found = (path for module in modules for path in (module.with_suffix(".py"), module / "__init__.py"))
        yield from (path for path in found if path.is_file())


def _list_files(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of a file, or of all files of a folder and of the folders linked there.

    Hashing a large corpus would take too long.
    """
    files = [path] if path.is_file() else []
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        files += [Path(folder, name) for name in names if Path(folder, name).exists()]
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
