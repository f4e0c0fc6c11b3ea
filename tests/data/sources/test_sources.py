"""What all sources have in common."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from mdpipe.data import sources
from mdpipe.data.sources import BUNDLED, FETCHED, LOCAL, source_parts
from mdpipe.params.sources import IMAGES, TEXT

SECTIONS = {section.model_fields["kind"].annotation.__args__[0]: section for section in (*TEXT, *IMAGES)}


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        ValueError, match=r"sources\.\*\.kind = 'files' is not one of arrays, csv, digits, docstrings, hub, hub_images"
    ):
        source_parts("files", tmp_path, tmp_path)


def test_every_kind_of_params_has_a_source():
    assert sorted(SECTIONS) == sorted((*BUNDLED, *FETCHED, *LOCAL))


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_settings_in_params_are_those_that_the_source_is_given(kind):
    module = import_module(f"{sources.__name__}.{kind}")
    taken = set(inspect.signature(module.parts).parameters) - {"path", "downloads"}
    assert taken == set(SECTIONS[kind].model_fields) - {"kind", "path"}


def test_a_source_needs_only_its_own_libraries():
    script = (
        "import sys; from collections import Counter; from pathlib import Path;"
        "from mdpipe.data.sources import source_parts;"
        "[part] = source_parts('docstrings', Path(), Path(), packages=['json']);"
        "assert list(part.read(Counter()));"
        "print(*{'torch', 'PIL', 'sklearn', 'polars', 'pyarrow', 'datasets', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
