"""The API pages of the documentation site, rendered without the other pages."""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("diffusion", "networks", "evaluation")


def public_names(package: str) -> Iterator[str]:
    """Yield the modules of a package, and their public classes, methods and functions."""
    for file in (ROOT / "src/mdpipe" / package).rglob("*.py"):
        if file.stem == "__init__":
            continue
        module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
        yield module
        for node in public(ast.parse(file.read_text())):
            yield f"{module}.{node.name}"
            methods = public(node) if isinstance(node, ast.ClassDef) else []
            yield from (f"{module}.{node.name}.{method.name}" for method in methods)


def public(scope: ast.AST) -> list[ast.ClassDef | ast.FunctionDef]:
    """Return the classes and functions of a module, or the methods of a class."""
    nodes = [node for node in ast.iter_child_nodes(scope) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [node for node in nodes if not node.name.startswith("_")]


def test_every_public_class_and_function_has_an_entry(tmp_path: Path) -> None:
    """With the options of mkdocs.yml, by which a name without a docstring has none."""
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    (options,) = [plugin for plugin in site["plugins"] if "mkdocstrings" in plugin]
    options["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT / "src")]
    for package in PACKAGES:
        assert f"api/{package}.md" in str(site["nav"])
    shutil.copytree(ROOT / "docs/api", tmp_path / "docs")
    config = {"site_name": "API", "theme": {"name": "mkdocs"}, "plugins": [options], "use_directory_urls": False}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    build(load_config(str(tmp_path / "mkdocs.yml")))
    for package in PACKAGES:
        entries = re.findall(r'id="([\w.]+)"', (tmp_path / f"site/{package}.html").read_text())
        assert sorted(set(public_names(package)) - set(entries)) == []
