"""Data that come with installed packages: docstrings, and the digits and photographs of scikit-learn.

Docstrings are parsed from the sources, which are never imported: nothing runs, and documents are sorted by name.
"""

import ast
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mdpipe.data.pixels import tile
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.sources.text import HALF_A_PAIR
from mdpipe.data.sources.writer import SourceShard
from mdpipe.params.sources import DigitsSource, DocstringsSource, PhotosSource

STANDARD_LIBRARY = "python"
TEST_FOLDERS = {"test", "tests", "idle_test"}


def open_bundled(source: DocstringsSource | DigitsSource | PhotosSource) -> list[SourceShard]:
    """Return everything as one shard."""
    return [SourceShard(None, 0, partial(_read, source))]


def _read(
    source: DocstringsSource | DigitsSource | PhotosSource,
    counts: Counter[str],  # noqa: ARG001
) -> Iterator[Document] | Iterator[ImageBatch]:
    if isinstance(source, DocstringsSource):
        return read_docstrings(source.packages)
    return (load_digits() if isinstance(source, DigitsSource) else load_photos(source.region)).batches()


def load_digits() -> ImageBatch:
    """Return the 1,797 digits: uint8 (1797, 8, 8, 1) from 0 to 16, labels 0 to 9; each digit is its own group."""
    rows = np.loadtxt(_sklearn_file("data/digits.csv.gz"), delimiter=",")
    images = rows[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8)
    groups = np.arange(len(images), dtype=np.int32)
    return ImageBatch(images, groups, maximum=16, labels=rows[:, -1].astype(np.int64))


def load_photos(region: int) -> ImageBatch:
    """Return the two photographs cut into squares: uint8 (N, region, region, 3); each square is its own group.

    Strips at the edges that do not fill a square are dropped: at region 64 each photograph of 427 x 640 has 6 x 10.
    """
    from PIL import Image

    photos = [np.asarray(Image.open(_sklearn_file(f"images/{name}"))) for name in ("china.jpg", "flower.jpg")]
    images = tile(np.stack(photos), region, stride=region)
    return ImageBatch(images, np.arange(len(images), dtype=np.int32), maximum=255)


def _sklearn_file(name: str) -> Path:
    """Return a data file of scikit-learn, whose import would take ten times as long as reading the file.

    Raises:
        ValueError: The package is not installed, or its version lacks the file.
    """
    spec = find_spec("sklearn")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(root, "datasets", name)).is_file():
            return path
    problem = f"has no datasets/{name}; install the version in constraints.txt" if spec else "is not installed"
    raise ValueError(f"scikit-learn {problem}: `pip install -c constraints.txt scikit-learn`")


def read_docstrings(packages: Sequence[str]) -> Iterator[Document]:
    """Yield one document per module: its docstrings in the order of the source, separated by blank lines.

    The package "python" is the standard library and pydoc's help topics, one document per topic.

    Raises:
        ValueError: A package is not installed, or has no docstrings in its sources.
    """
    documents = []
    for package in packages:
        found = _standard_library() if package == STANDARD_LIBRARY else _package(package)
        if not found:
            raise ValueError(f"package {package!r} has no docstrings in Python sources; choose another one")
        documents += found
    yield from sorted(documents, key=lambda document: document.name)


def _standard_library() -> list[Document]:
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_path("stdlib"))
    documents = [Document(f"pydoc_data.topics.{name}", text.strip()) for name, text in topics.items() if text.strip()]
    # The interpreter's own list of names excludes site-packages and whatever else a distribution keeps in the folder.
    for name in sorted(sys.stdlib_module_names):
        documents += _modules(root / name, name) if (root / name).is_dir() else _module(root / f"{name}.py", name)
    return documents


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
    """Return the documents of a package's folder and its sub-packages, without tests."""
    documents = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.isidentifier() and path.name not in TEST_FOLDERS | {"__pycache__"}:
            documents += _modules(path, f"{name}.{path.name}")
        elif path.suffix == ".py":
            documents += _module(path, name if path.stem == "__init__" else f"{name}.{path.stem}")
    return documents


def _module(path: Path, name: str) -> list[Document]:
    """Return the document of a module, or nothing if it has no docstrings or no Python source."""
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
