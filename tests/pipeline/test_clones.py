"""`snakemake` and `dvc repro` make one and the same thing of a fresh clone, and neither makes anything twice."""

import hashlib

import pytest
import yaml

from tests.pipeline.conftest import fresh_copy

pytestmark = pytest.mark.pipeline


def test_fresh_clones_make_the_same_lock_and_the_same_bytes_whatever_the_engine(built, tmp_path):
    copy = fresh_copy(tmp_path)
    copy.run("dvc", "repro")
    assert copy.lock() == built.lock()
    assert copy.is_up_to_date()
    for folder in ("data", "models", "samples", "metrics", "results", "report"):
        assert copy.digest(folder) == built.digest(folder)
    names = list(yaml.safe_load(built.lock())["stages"])
    assert names == sorted(names)


def test_a_lock_file_cut_short_by_a_kill_is_made_again_on_one_core_without_computing(made):
    """All stages are new to the lock and finish in another order than on all cores: the lock is the same."""
    lock = made.root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: len(whole) // 2])
    made.run("snakemake", "--cores", "1")
    assert made.is_up_to_date()
    assert made.lock() == whole
    assert set(made.stages_run()) <= {"report"}


def test_nothing_runs_where_nothing_changed(made):
    assert "Nothing to be done" in made.run("snakemake")
    assert "up to date" in made.run("dvc", "repro")
    assert made.stages_run() in ([], ["report"])


def test_an_artifact_is_stored_once(made):
    """What lies in the working copy is a link into DVC's cache."""
    made.edit_params("seed", 1)  # The copy of the session's artifacts was made by a program that knows no links.
    made.run("dvc", "repro", "download@digits", "encode@digits")
    tokens = made.root / "data/encoded/digits/train-00000.npy"
    digest = hashlib.md5(tokens.read_bytes()).hexdigest()
    assert tokens.samefile(made.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:])
    assert not tokens.stat().st_mode & 0o222
