"""What all sources have in common."""

import subprocess
import sys

import pytest

from mdpipe.data.sources import BUNDLED, LOCAL, read_source


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        ValueError, match=r"sources\.\*\.kind = 'files' is not one of arrays, digits, docstrings, image"
    ):
        read_source("files", tmp_path)


def test_every_kind_of_params_has_a_source():
    from mdpipe.params.data import SOURCE_MODALITY

    assert set(SOURCE_MODALITY) == {*BUNDLED, *LOCAL}


def test_a_source_needs_only_its_own_libraries():
    script = (
        "import sys, mdpipe.data.sources as s;"
        "list(s.read_source('docstrings', None, packages=['json']));"
        "print(*{'torch', 'PIL', 'sklearn', 'polars'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
