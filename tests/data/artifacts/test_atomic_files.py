"""Folders appear whole or not at all."""

import pytest

from mdpipe.data.artifacts.files import atomic_dir


def test_the_folder_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "folder"
    with atomic_dir(target) as folder:
        (folder / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_a_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "file").write_text("old")
    with pytest.raises(RuntimeError), atomic_dir(target) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert (target / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_success_replaces_old_content_and_leftovers_of_a_kill(tmp_path):
    target, left_over = tmp_path / "folder", tmp_path / ".folder.partial"
    for folder in (target, left_over):
        folder.mkdir()
        (folder / "stale").write_text("old")
    with atomic_dir(target) as folder:
        (folder / "file").write_text("new")
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
