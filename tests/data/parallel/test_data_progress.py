"""What a long stage tells while data are prepared."""

import pytest

from mdpipe import progress as progress_module
from mdpipe.progress import LOG_INTERVAL, Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_a_log_gets_a_line_now_and_then_with_rate_and_time_left(clock, capsys):
    with Progress("tokenizing", 10_000_000) as progress:
        progress.advance(1_000_000)
        clock(LOG_INTERVAL - 1)
        progress.advance(500_000)
        assert not capsys.readouterr().err
        clock(1)
        progress.advance(500_000)
        assert capsys.readouterr().err == "tokenizing: 2.0 MB of 10.0 MB, 0.2 MB/s, 40 s left\n"
        progress.advance(500_000)
        assert not capsys.readouterr().err
        clock(LOG_INTERVAL)
        progress.advance(1_500_000)
        assert capsys.readouterr().err == "tokenizing: 4.0 MB of 10.0 MB, 0.2 MB/s, 30 s left\n"


def test_earlier_results_count_as_done_not_for_the_rate(clock):
    progress = Progress("tokenizing", 10_000_000)
    progress.advance(6_000_000, is_resumed=True)
    progress.advance(2_000_000)
    assert progress.line(10) == "tokenizing: 8.0 MB of 10.0 MB, 0.2 MB/s, 10 s left"


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_total_there_is_no_time_left(total):
    progress = Progress("quantizing", total)
    progress.advance(1_234_500_000)
    assert progress.line(100) == "quantizing: 1,234.5 MB, 12.3 MB/s"


def test_at_the_beginning_nothing_is_divided_by_zero():
    assert Progress("tokenizing", 5_000_000).line(0) == "tokenizing: 0.0 MB of 5.0 MB, 0.0 MB/s, 5,000,000 s left"


def test_more_than_the_total_leaves_no_time():
    progress = Progress("tokenizing", 1_000_000)
    progress.advance(3_000_000)
    assert progress.line(1).endswith(", 0 s left")


def test_a_terminal_shows_a_bar_instead_of_lines(clock, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("tokenizing", 10) as progress:
        clock(2 * LOG_INTERVAL)
        progress.advance(5)
    shown = capsys.readouterr().err
    assert "MB/s" not in shown
    assert "tokenizing" in shown
