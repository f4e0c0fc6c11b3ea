"""Folders appear whole or not at all."""

import pytest

from mdpipe.data.artifacts.files import atomic_dir


def test_the_folder_appears_only_when_it_is_complete(tmp_path):
    place = tmp_path / "deep" / "place"
    with atomic_dir(place) as folder:
        (folder / "file").write_text("new")
        assert not place.exists()
    assert (place / "file").read_text() == "new"
    assert [path.name for path in place.parent.iterdir()] == ["place"]


def test_a_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_text("old")
    with pytest.raises(RuntimeError), atomic_dir(place) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert (place / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_success_replaces_what_was_there_and_what_a_killed_process_left(tmp_path):
    place, find_leftovers = tmp_path / "place", tmp_path / ".place.partial"
    for folder in (place, find_leftovers):
        folder.mkdir()
        (folder / "stale").write_text("old")
    with atomic_dir(place) as folder:
        (folder / "file").write_text("new")
    assert [path.name for path in place.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
