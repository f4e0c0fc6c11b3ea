"""Room on the disk is asked for where it will be needed."""

import shutil

import pytest

from mdpipe.data.artifacts.room import require_room


def test_what_fits_is_let_through_and_what_does_not_says_how_much_is_missing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**10, 7 * 10**9, 3 * 10**9))
    require_room(tmp_path, 3 * 10**9, "tokenizing")
    assert capfd.readouterr().err == "tokenizing needs about 3.00 GB of the disk's free 3.00 GB\n"
    require_room(tmp_path, 10**6, "tokenizing")
    assert not capfd.readouterr().err
    with pytest.raises(
        ValueError, match=r"tokenizing needs about 5\.00 GB in .*, where 3\.00 GB are free: .* 2\.00 GB"
    ):
        require_room(tmp_path, 5 * 10**9, "tokenizing")


def test_a_folder_that_is_not_there_yet_is_asked_for_where_it_will_be(tmp_path, monkeypatch):
    asked = []

    def usage(place):
        asked.append(place)
        return shutil._ntuple_diskusage(1, 0, 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_room(tmp_path / "not" / "yet", 1, "it")
    assert asked == [tmp_path]
