"""dvc.yaml names all the code that a stage runs: what it imports, directly or through others, makes it stale."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

NO_INFLUENCE = (
    "mdpipe/params",
    "mdpipe/kinds.py",
    "mdpipe/stages/paths.py",
    "mdpipe/stages/data_fingerprint.py",
    "mdpipe/stages/digest.py",
    "mdpipe/stages/__init__.py",
    "mdpipe/__init__.py",
)
"""Params are watched by their values, kinds by the files they are found in, and DVC watches the paths themselves.
Fingerprints name scratch folders, of which no trace is in an artifact."""


def module_file(name: str) -> Path | None:
    """The file of a module of the package; None for what is no module."""
    path = SOURCE / name.replace(".", "/")
    if path.with_suffix(".py").exists():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").exists() else None


def imported(path: Path) -> set[Path]:
    """The package's files that a file imports, outside of `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    only_for_types = {
        node
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING"
        for node in ast.walk(guard)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in only_for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {module_file(name) for name in names if name.startswith("mdpipe.")}
    return {file for file in files if file is not None}


def closure(path: Path) -> set[Path]:
    """All files of the package that a file needs, itself included."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += imported(file)
    return found


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_file_that_a_stage_imports_is_among_its_dependencies(stage):
    entry = STAGES[stage].get("do", STAGES[stage])
    declared = [ROOT / dependency for dependency in entry["deps"] if dependency.startswith("src/")]
    undeclared = {
        str(file.relative_to(SOURCE))
        for file in closure(SOURCE / f"mdpipe/stages/{stage}.py")
        if not any(file.is_relative_to(place) for place in declared)
    }
    assert {name for name in undeclared if not name.startswith(NO_INFLUENCE)} == set()


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_code_dependency_exists(stage):
    entry = STAGES[stage].get("do", STAGES[stage])
    assert all((ROOT / dependency).exists() for dependency in entry["deps"] if dependency.startswith("src/"))
