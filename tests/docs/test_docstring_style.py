"""Docstrings begin with a noun or a verb; so do the entries of their sections and the help texts of options."""

import ast
import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("src", "workflow", "docs") for path in (ROOT / folder).rglob("*.py"))
TREES = [(path.relative_to(ROOT), ast.parse(path.read_text())) for path in FILES]
QUESTION = re.compile(r"(What|Of|That|Whether|How|Which|Where|Who|Whose|Why)\b", re.IGNORECASE)
SECTION = re.compile(r"^(?:Args|Attributes|Raises|Returns|Yields):\n((?:    .*\n?)+)", re.MULTILINE)
ENTRY = re.compile(r"^    (?:\*{0,2}[\w.]+: )?(\S.*)", re.MULTILINE)
LOWER_CASE = re.compile(r"[a-z]{2,}[ ,;:]")
"""A first word that is neither a symbol nor a name in code."""


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of all docstrings, including those of fields and constants."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for part in body if isinstance(body, list) else ():
            match part:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    yield part.lineno, cleandoc(text)


def _entries(docstring: str) -> list[str]:
    """Return what the sections of a docstring say of each argument or error."""
    found: list[str] = []
    for section in SECTION.finditer(docstring):
        entries = ENTRY.findall(section[1])
        found += entries[:1] if section[0].startswith(("Returns", "Yields")) else entries
    return found


def _helps(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of the help of options and the descriptions of settings."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        texts = [keyword.value for keyword in call.keywords if keyword.arg in ("help", "description")]
        is_option = isinstance(call.func, ast.Name) and call.func.id == "option"
        for text in [*texts, *(call.args[1:2] if is_option else ())]:
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield text.lineno, text.value


def test_docstrings_and_helps_begin_with_a_noun_or_a_verb() -> None:
    texts = [(path, *found) for path, tree in TREES for found in (*_docstrings(tree), *_helps(tree))]
    assert len(texts) > 2000
    assert [found for found in texts if QUESTION.match(found[2])] == []


def test_entries_of_docstrings_begin_with_a_capital_letter() -> None:
    entries = [
        (path, line, entry) for path, tree in TREES for line, text in _docstrings(tree) for entry in _entries(text)
    ]
    assert len(entries) > 400
    assert [found for found in entries if QUESTION.match(found[2]) or LOWER_CASE.match(found[2])] == []


def test_docstrings_of_properties_begin_with_return() -> None:
    properties = [
        (path, node.lineno, text)
        for path, tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
        and (text := ast.get_docstring(node))
    ]
    assert len(properties) > 50
    assert [found for found in properties if not found[2].startswith("Return ")] == []
