"""What all sources have in common."""

import subprocess
import sys
from typing import get_args

import pytest
from pydantic import ValidationError

from mdpipe.data.sources import open_source
from mdpipe.data.sources.text import DETOKENIZERS
from mdpipe.params.sources import DocumentSource, Source
from tests.data.sources.source_contents import shards_of

KINDS = [kind for kind in Source.kinds if kind != "catalog"]
LEAST = {
    "docstrings": {"packages": ["json"]},
    "huggingface": {"name": "owner/name"},
    "mnist_idx": {"images": "images"},
    "npz_flat": {"shape": [3, 2, 2]},
    "url": {"url": "ftp://nowhere"},
}
"""Settings without a default."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_defaults_for_the_other_settings(kind):
    settings = {"kind": kind, "path": "my/data", **LEAST.get(kind, {})}
    if kind == "url":
        with pytest.raises(ValidationError):
            Source.parse(settings)
        settings["url"] = "http://example.org/a.txt"
    assert Source.parse(settings).resolve().path == "my/data"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("docstrings", "digits", "photos", "npy")])
def test_every_kind_has_a_reader_that_names_what_is_missing(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MDPIPE_OFFLINE", "1")
    settings = {**LEAST, "url": {"url": "http://nowhere.invalid/a"}, "huggingface": {"name": str(tmp_path / "no")}}
    with pytest.raises(ValueError, match=r"params\.yaml|does not exist|yourself"):
        shards_of(kind, tmp_path / "nowhere", **settings.get(kind, {}))


def test_a_source_without_a_reader_is_refused(tmp_path):
    with pytest.raises(TypeError, match="Source has no reader"):
        open_source(Source.model_construct(kind="other", path="."), tmp_path)


def test_every_detokenizer_can_be_chosen_in_params():
    names, _ = get_args(DocumentSource.model_fields["detokenizer"].annotation)
    assert sorted(get_args(names)) == sorted(DETOKENIZERS)


def test_a_source_needs_only_its_own_libraries():
    script = (
        "import sys; from collections import Counter; from pathlib import Path;"
        "from mdpipe.data.sources import open_source;"
        "from mdpipe.params.sources import DocstringsSource;"
        "[shard] = open_source(DocstringsSource(kind='docstrings', path='.', packages=['json']), Path());"
        "assert list(shard.read(Counter()));"
        "print(*{'torch', 'PIL', 'sklearn', 'polars', 'pyarrow', 'datasets', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
