"""Work in shards: whatever happens to the processes, every shard is written once."""

import os
import random

import pytest

from mdpipe.console import report_errors
from mdpipe.data.parallel import WORKERS, map_shards, num_workers
from mdpipe.progress import Progress
from tests.data.killed_processes import marks, run, run_until
from tests.data.parallel import works
from tests.data.shards import folder_bytes

pytestmark = pytest.mark.slow

ITEMS = [5, 0, 7, 2, 4]

SCRIPT = """
from pathlib import Path
from mdpipe.data.parallel import map_shards
from mdpipe.progress import Progress
from tests.data.parallel.works import write_slowly

if __name__ == "__main__":
    map_shards(write_slowly, {items}, Path({work_dir!r}), Progress("writing", None))
"""


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


def make(work, items, work_dir):
    return map_shards(work, items, work_dir, Progress("testing", None))


def test_each_shard_is_made_once_in_the_order_of_the_items(tmp_path):
    results = make(works.write, ITEMS, tmp_path / "work_dir")
    assert [result.summary["item"] for result in results] == ITEMS
    assert [result.folder.name for result in results] == ["00000", "00001", "00002", "00003", "00004"]
    assert [(result.folder / "letters.txt").read_text() for result in results] == ["fffff", "", "hhhhhhh", "cc", "eeee"]
    assert len(list((tmp_path / "work_dir").iterdir())) == len(ITEMS)


def test_no_items_are_no_shards(tmp_path):
    assert make(works.write, [], tmp_path / "work_dir") == []


def test_the_number_of_processes_changes_no_byte(tmp_path, monkeypatch):
    found = {}
    for count in ("1", "2", "3"):
        monkeypatch.setenv(WORKERS, count)
        results = make(works.write, ITEMS, tmp_path / count)
        assert [result.summary["item"] for result in results] == ITEMS
        found[count] = folder_bytes(tmp_path / count)
    assert found["1"] == found["2"] == found["3"]


def test_shards_that_are_there_are_not_made_again(tmp_path):
    make(works.write, ITEMS[:3], tmp_path)
    before = marks(tmp_path)
    make(works.write, ITEMS, tmp_path)
    after = marks(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == 2 * len(ITEMS)


class Recorder:
    """Record how progress is called."""

    def __init__(self):
        self.made, self.before = [], []

    def advance(self, count, *, is_resumed=False):
        (self.before if is_resumed else self.made).append(count)


def test_progress_counts_shards_of_an_earlier_process_apart(tmp_path):
    make(works.write, ITEMS[:2], tmp_path)
    heard = Recorder()
    map_shards(works.write, ITEMS, tmp_path, heard)
    assert (heard.before, heard.made) == (ITEMS[:2], ITEMS[2:])


@pytest.mark.parametrize("count", ["1", "2"])
def test_an_error_in_a_shard_names_it_and_keeps_the_others(tmp_path, monkeypatch, count):
    monkeypatch.setenv(WORKERS, count)
    items = [0, 1, 2, works.BROKEN, 4]
    with pytest.raises(ValueError, match="item 3 is broken; correct it"):
        make(works.write_all_but_one, items, tmp_path)
    kept = marks(tmp_path)
    assert {"00000", "00001", "00002"} <= {path.parent.name for path in kept}
    assert not [path for path in tmp_path.iterdir() if path.name in ("00003", ".00003.partial")]
    make(works.write, items, tmp_path)
    assert kept.items() <= marks(tmp_path).items()


@pytest.mark.parametrize("count", ["1", "2"])
def test_bad_input_is_one_line_and_a_bug_a_traceback(tmp_path, monkeypatch, count):
    """Whichever process meets it: the command line tells them apart by where the error was raised."""
    monkeypatch.setenv(WORKERS, count)
    with pytest.raises(SystemExit, match=r"mdpipe: .*[01]\.json does not exist; give it"), report_errors():
        make(works.read_what_is_not_there, [0, 1], tmp_path)
    with pytest.raises(ValueError, match="item 3 is broken"), report_errors():
        make(works.write_all_but_one, [works.BROKEN, works.BROKEN], tmp_path)


def test_a_killed_process_is_named_and_finished_shards_stay(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKERS, "2")
    with pytest.raises(ValueError, match=rf"a process was killed, .* {WORKERS} below 2 and run .* again"):
        make(works.die_once_the_others_are_done, [0, 1, 2, works.BROKEN], tmp_path)
    assert {path.parent.name for path in marks(tmp_path)} == {"00000", "00001", "00002"}


def test_killed_and_run_again_it_makes_the_same_bytes(tmp_path):
    """SIGKILL while the processes start, and whenever one, two, ... more shards are finished."""
    items = [3, 8, 1, 6, 9, 2, 7, 5, 4, 8, 3, 6]
    work_dir, script, chance = tmp_path / "work_dir", tmp_path / "script.py", random.Random(0)
    script.write_text(SCRIPT.format(items=items, work_dir=str(work_dir)))
    killed = helpers = 0
    for wanted in (0, 2, 5, 8, 10):
        delay = chance.uniform(0, 0.05)
        kept = marks(work_dir)

        def is_reached(wanted=wanted):
            return len(marks(work_dir)) >= 2 * wanted

        was_killed, children = run_until(script, 2, is_reached, delay)
        killed, helpers = killed + was_killed, max(helpers, children)
        assert kept.items() <= marks(work_dir).items()
    assert killed >= 4
    assert helpers >= 2
    kept = marks(work_dir)
    run(script, 2)
    assert kept.items() <= marks(work_dir).items()
    make(works.write_slowly, items, tmp_path / "undisturbed")
    assert folder_bytes(work_dir) == folder_bytes(tmp_path / "undisturbed")


@pytest.mark.parametrize("stated", ["0", "-1", "two", "", "1.5", "²"])
def test_a_wrong_number_of_processes_is_refused(monkeypatch, tmp_path, stated):
    monkeypatch.setenv(WORKERS, stated)
    with pytest.raises(ValueError, match=rf"variable {WORKERS} is '{stated}'; it must be a positive number"):
        make(works.write, ITEMS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_default_is_one_process_per_allowed_core(monkeypatch):
    monkeypatch.delenv(WORKERS)
    assert num_workers() == len(os.sched_getaffinity(0))
