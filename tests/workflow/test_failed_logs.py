"""A failed job's cause is on the screen, and its progress is not."""

import logging
from pathlib import Path

import snakemake.logging
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from workflow.engine import LOG_LINES, add_messages, last_lines, print_failures


def test_the_last_lines_are_shown_under_the_path(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"step {step}\n" for step in range(5000)) + "mdpipe: the cause\nERROR: failed\n")
    heading, *lines = last_lines([str(log)])
    assert heading == f"The end of {log}:"
    assert len(lines) == LOG_LINES
    assert lines[-2:] == ["    mdpipe: the cause", "    ERROR: failed"]


def test_of_a_progress_bar_the_last_state_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "encode.log"
    log.write_bytes(b"start\n" + b"".join(b"%d%%\r" % done for done in range(100)) + b"\nbroken \xff\n\n")
    _, *lines = last_lines([str(log)])
    assert lines == ["    start", "    99%", "    broken \ufffd"]


def test_of_a_huge_log_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_bytes(b"x" * 5_000_000 + b"\nthe cause\n")
    _, line, cause = last_lines([str(log)])
    assert len(line) < 2000
    assert cause == "    the cause"


def test_a_log_that_is_missing_or_empty_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    missing, empty = last_lines([str(tmp_path / "missing"), str(tmp_path / "empty")])
    assert missing == f"{tmp_path / 'missing'} was not written: the job did not start"
    assert empty == f"The end of {tmp_path / 'empty'}:"


def failed_job(log: Path) -> logging.LogRecord:
    """Return the record that Snakemake logs for a failed job."""
    record = logging.LogRecord("snakemake", logging.ERROR, "", 0, "Error in rule train@chars_md4", None, None)
    record.event = LogEvent.JOB_ERROR
    fields = {
        "rule_name": "train@chars_md4",
        "jobid": 1,
        "input": [],
        "output": [],
        "log": [str(log)],
        "conda_env": None,
    }
    fields |= {"container_img": None, "shellcmd": None, "aux": {}, "indent": False, "rule_msg": None}
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def test_failed_job_is_described_by_the_message_of_its_rule(tmp_path: Path) -> None:
    record = failed_job(tmp_path / "train.log")
    formatter = DefaultFormatter(quiet=set(), show_failed_logs=False)
    logger = logging.getLogger("snakemake.test")
    logger.addFilter(add_messages({"train@chars_md4": "Train chars_md4"}))
    assert logger.filter(record)
    assert "message: Train chars_md4\n" in formatter.format(record)


def test_snakemake_shows_failed_jobs_by_the_replaced_function(tmp_path, monkeypatch) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"step {step}\n" for step in range(100)) + "the cause\n")
    monkeypatch.setattr(snakemake.logging, "show_logs", last_lines)
    formatter = DefaultFormatter(quiet=set(), show_failed_logs=True)
    shown = formatter.format(failed_job(log))
    assert "the cause" in shown
    assert "step 10\n" not in shown


def test_failed_stages_are_named_again_at_the_end(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("workflow.engine._failed", [])
    log = Path("logs/train@chars_md4.log")
    log.parent.mkdir()
    log.write_text("step 1\nmdpipe: the cause\nERROR: failed to reproduce\n")
    assert add_messages({})(failed_job(log))
    print_failures()
    assert capsys.readouterr().err == "train@chars_md4 failed: mdpipe: the cause\n"
    log.write_text("step 1\nKilled\n")
    print_failures()
    assert capsys.readouterr().err == "train@chars_md4 failed: Killed\n"
