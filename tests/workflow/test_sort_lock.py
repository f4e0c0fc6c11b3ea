"""dvc.lock is sorted by stage name and loses nothing by it."""

from dvc.utils.serialize import dump_yaml, load_yaml
from hypothesis import given
from hypothesis import strategies as st

from workflow.engine import repair_lock_file
from workflow.sort_lock import LAST_STAGE, sort_lock

stage_names = st.from_regex(r"[a-z_]{1,6}(@[a-z]{1,4})?", fullmatch=True)


@given(names=st.lists(stage_names, unique=True))
def test_sorting_keeps_all_entries_and_the_last_stages_place(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("lock") / "dvc.lock"
    stages = {name: {"cmd": f"run {name}", "params": {"params.yaml": {"rate": 2e-05}}} for name in names}
    dump_yaml(str(path), {"schema": "2.0", "stages": stages})
    sort_lock(path)
    lock = load_yaml(str(path))
    assert list(lock["stages"]) == sorted({*names, LAST_STAGE})
    assert {name: lock["stages"][name] for name in names} == stages
    once = path.read_bytes()
    sort_lock(path)
    assert path.read_bytes() == once


def test_a_missing_lock_file_stays_missing(tmp_path):
    sort_lock(tmp_path / "dvc.lock")
    assert not list(tmp_path.iterdir())


def test_a_lock_file_cut_short_is_put_aside_and_a_good_one_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mdpipe").mkdir()
    lock = tmp_path / "dvc.lock"
    for good in ("schema: '2.0'\nstages: {}\n",):
        lock.write_text(good)
        repair_lock_file(dry_run=False)
        assert lock.read_text() == good
    for broken in ("", "schema: '2.0'\nstages:\n  train@a:\n    cmd: 'mdp"):
        lock.write_text(broken)
        repair_lock_file(dry_run=False)
        assert not lock.exists()
        assert (tmp_path / ".mdpipe/dvc.lock.broken").read_text() == broken
