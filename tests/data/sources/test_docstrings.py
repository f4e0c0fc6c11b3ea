"""Docstrings as text."""

import sys
from pathlib import Path

import pytest

from mdpipe.data.raw import Document
from mdpipe.data.sources.bundled import read_docstrings
from tests.data.sources.source_contents import documents_of

pytestmark = pytest.mark.slow


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that cannot be imported without harm."""
    files = {
        "__init__.py": '"""The package."""\nraise SystemExit("imported")\n',
        "plain.py": '"""First.\n\n    Indented.\n    """\n\n'
        'class Box:\n    """A box."""\n\n    def open(self):\n        """Open it."""\n\n'
        'async def run():\n    """Run."""\n\ndef bare(): ...\n',
        "silent.py": "x = 1\n",
        "broken.py": "def {{ template }}:\n",
        "latin.py": b"# -*- coding: latin-1 -*-\n'''caf\xe9'''\n",
        "half.py": '"""Half \\udcb2 a pair."""\n',
        "inner/__init__.py": "",
        "inner/deep.py": "r'''Deep \\d.'''\n",
        "tests/test_plain.py": '"""A test."""\n',
        "test/more.py": '"""A test."""\n',
        "not-a-module/code.py": '"""No module."""\n',
    }
    for name, content in files.items():
        path = tmp_path / "hoard" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "single_hoard.py").write_text('"""Alone."""')
    (tmp_path / "mute_hoard.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    return "hoard"


def test_a_document_has_the_docstrings_of_a_module_in_order(package):
    assert documents_of("docstrings", Path(), packages=[package]) == [
        Document("hoard", "The package."),
        Document("hoard.half", "Half \ufffd a pair."),
        Document("hoard.inner.deep", "Deep \\d."),
        Document("hoard.latin", "caf\u00e9"),
        Document("hoard.plain", "First.\n\nIndented.\n\nA box.\n\nOpen it.\n\nRun."),
    ]
    assert package not in sys.modules


def test_documents_of_several_packages_are_sorted_by_name(package):
    names = [document.name for document in read_docstrings(["single_hoard", package])]
    assert names == sorted(names)
    assert "single_hoard" in names


def test_the_standard_library_has_two_megabytes_of_docstrings():
    documents = list(read_docstrings(["python"]))
    names = [document.name for document in documents]
    assert names == sorted(set(names))
    assert 2.0e6 < sum(len(document.text) for document in documents) < 3.0e6
    assert {"json", "json.decoder", "asyncio.events", "pydoc_data.topics.assert"} <= set(names)
    assert not [name for name in names if {"test", "tests", "idle_test", "site-packages"} & set(name.split("."))]
    assert all(document.text.strip() == document.text != "" for document in documents)
    assert not any(sys.prefix in document.text or sys.base_prefix in document.text for document in documents)


@pytest.mark.parametrize("name", ["no_such_hoard", "hoard.inner", "no-name", ""])
def test_a_package_that_is_not_installed_is_named_with_a_hint(package, name):
    with pytest.raises(ValueError, match=rf"package '{name}' is not installed; `pip install` it"):
        list(read_docstrings([name]))


@pytest.mark.parametrize("name", ["mute_hoard", "_heapq"])
def test_a_package_without_docstrings_is_named(package, name):
    with pytest.raises(ValueError, match=f"package '{name}' has no docstrings"):
        list(read_docstrings([name]))
