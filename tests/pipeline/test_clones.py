"""Nothing is made twice, and what was damaged is restored. (workflow/smoke.sh compares the engines on fresh clones.)"""

import hashlib

import pytest

pytestmark = pytest.mark.pipeline


def test_a_truncated_lock_file_is_repaired_without_computing(uninterrupted, tmp_path):
    """All stages are new to the lock."""
    copy = uninterrupted.twin(tmp_path)
    lock = copy.root / "dvc.lock"
    whole = lock.read_text()
    beginning = whole[: whole.index("md5:", len(whole) // 2) + len("md")]  # Half a key is not YAML.
    lock.write_text(beginning)
    assert "dvc.lock is cut short" in copy.run("snakemake", "--dry-run", succeeds=False)
    assert lock.read_text() == beginning
    copy.run("snakemake", "--cores", "1")
    assert copy.is_up_to_date()
    assert copy.lock() == whole
    assert set(copy.stages_run()) <= {"report"}


def test_nothing_runs_where_nothing_changed(built_copy):
    assert "Nothing to be done" in built_copy.run("snakemake")
    assert "up to date" in built_copy.run("dvc", "repro")
    assert built_copy.stages_run() in ([], ["report"])


@pytest.mark.parametrize("engine", [("snakemake",), ("dvc", "repro")], ids=lambda engine: engine[0])
def test_a_byte_changed_in_an_artifact_is_restored(built_copy, engine):
    """An artifact and its object in DVC's cache are two files, so that an edit of one leaves the other alone."""
    model = built_copy.root / "models/digits/model.safetensors"
    before = built_copy.digest("models")
    content = bytearray(model.read_bytes())
    content[-5] ^= 0x40
    model.chmod(0o644)
    model.write_bytes(content)
    built_copy.run(*engine)
    assert built_copy.digest("models") == before
    assert built_copy.is_up_to_date()
    assert "train digits" not in built_copy.stages_run()


def test_a_broken_cache_object_is_named_and_its_stage_runs_again(built_copy):
    model = built_copy.root / "models/digits/model.safetensors"
    whole = model.read_bytes()
    digest = hashlib.md5(whole).hexdigest()
    broken = built_copy.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    broken.chmod(0o644)
    broken.write_bytes(whole[:-5] + bytes([whole[-5] ^ 0x40]) + whole[-4:])
    broken.chmod(0o444)
    model.unlink()
    assert f"{digest[2:]} is broken" in built_copy.run("snakemake")
    assert "train digits" in built_copy.stages_run()
    assert model.read_bytes() == whole
    assert broken.read_bytes() == whole
    assert built_copy.is_up_to_date()
