"""The documentation inside installed Python packages: training text that every machine already has.

Sources are parsed, never imported: nothing runs, and the order is that of the names.
"""

import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.decoding import HALF_A_PAIR
from mdpipe.data.sources.whole import Whole

STANDARD_LIBRARY = "python"
TEST_FOLDERS = {"test", "tests", "idle_test"}


def parts(packages: list[str]) -> list[Whole]:
    """All documents at once."""
    return [Whole(read, {"packages": packages})]


def read(packages: list[str]) -> Iterator[Document]:
    """One document a module: its docstrings, in the order of the source, with a blank line between them.

    The package "python" is the standard library together with pydoc's help topics, one document a topic.

    Raises:
        ValueError: a package is not installed, or has no docstrings in its sources.
    """
    documents = []
    for package in packages:
        found = _standard_library() if package == STANDARD_LIBRARY else _package(package)
        if not found:
            raise ValueError(f"package {package!r} has no docstrings in Python sources; choose another one")
        documents += found
    yield from sorted(documents, key=lambda document: document.name)


def _standard_library() -> list[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    # The interpreter's own list of names leaves out site-packages and whatever else a distribution keeps in the folder.
    for name in sorted(sys.stdlib_module_names):
        documents += _modules(root / name, name) if (root / name).is_dir() else _module(root / f"{name}.py", name)
    return documents + _help_topics()


def _help_topics() -> list[Document]:
    from pydoc_data.topics import topics

    return [Document(f"pydoc_data.topics.{name}", text.strip()) for name, text in topics.items() if text.strip()]


def _package(package: str) -> list[Document]:
    spec = find_spec(package) if package.isidentifier() else None  # of a top-level name: imports nothing
    if spec is None:
        raise ValueError(
            f"package {package!r} is not installed; `pip install` it, or take it out of the source's `packages`"
            " (top-level import names, such as sklearn)"
        )
    if spec.submodule_search_locations is None:
        return _module(Path(spec.origin or ""), package)
    return [document for root in spec.submodule_search_locations for document in _modules(Path(root), package)]


def _modules(folder: Path, name: str) -> list[Document]:
    """The documents of a package's folder and of those below it, tests left out."""
    documents = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.isidentifier() and path.name not in TEST_FOLDERS | {"__pycache__"}:
            documents += _modules(path, f"{name}.{path.name}")
        elif path.suffix == ".py":
            documents += _module(path, name if path.stem == "__init__" else f"{name}.{path.stem}")
    return documents


def _module(path: Path, name: str) -> list[Document]:
    """The document of a module, in a list; an empty list if it has no docstrings, or no Python source."""
    if path.suffix != ".py" or not path.is_file():
        return []
    try:
        with warnings.catch_warnings(action="ignore"):  # other people's invalid escapes
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # a template, or a file for another version of Python
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    text = "\n\n".join(doc for node in nodes if (doc := (ast.get_docstring(node) or "").strip()))
    return [Document(name, HALF_A_PAIR.sub("\ufffd", text))] if text else []
