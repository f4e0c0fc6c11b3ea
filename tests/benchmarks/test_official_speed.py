"""The comparison with the official training step: results/speed/official. JAX is not needed here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from results.speed.official.compare import COLUMNS, COMMAND, IMPLEMENTATIONS, to_ratios

SPEED = Path(__file__).parents[2] / "results/speed"
MEASURED = json.loads((SPEED / "official.json").read_text())
COUNT = len(IMPLEMENTATIONS)
CASES = [MEASURED["rows"][first : first + COUNT] for first in range(0, len(MEASURED["rows"]), COUNT)]


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SPEED / "official/compare.py", *arguments]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_the_ratios_are_those_of_the_measured_rows():
    assert [[row["implementation"] for row in rows] for rows in CASES] == [list(IMPLEMENTATIONS)] * len(CASES)
    assert [ratio for rows in CASES for ratio in to_ratios(rows)] == MEASURED["ratios"]


def test_the_readme_has_the_table_of_the_measured_rows():
    page = (SPEED / "README.md").read_text()
    for row in MEASURED["rows"]:
        assert f"| {' | '.join(cell(row) for cell in COLUMNS.values())} |".replace("|  |", "| |") in page


def test_the_measured_command_is_that_of_the_documentation():
    assert MEASURED["command"] == COMMAND
    assert f"\n{COMMAND}\n" in (SPEED.parents[1] / "docs/speed.md").read_text()


@pytest.mark.slow
def test_a_missing_checkout_or_jax_is_an_error_with_a_hint(tmp_path):
    checkout, out = tmp_path / "md4", tmp_path / "out.json"
    arguments = ("--official", checkout, "--out", out, "--jax-python")
    done = compare(*arguments, sys.executable)
    assert done.returncode == 2 and "--official must be a checkout of google-deepmind/md4" in done.stderr
    model = checkout / "md4/models/diffusion/md4.py"
    model.parent.mkdir(parents=True)
    model.write_text("import no_such_jax\n")
    assert "no-python' does not exist. docs/speed.md says how" in compare(*arguments, tmp_path / "no-python").stderr
    done = compare(*arguments, sys.executable)
    assert "No module named 'no_such_jax'. Run" in done.stderr
    assert "-m pip install -r results/speed/official/requirements.txt" in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_our_side_answers_with_seconds_and_the_loss():
    job = {"shape": "chars", "batch": 2, "threads": 1, "compile": False}
    command = [sys.executable, SPEED / "official/mdpipe_step.py"]
    done = subprocess.run(command, input=f"{json.dumps(job)}\n3\n1\n", capture_output=True, text=True, check=True)
    setup, *answers = map(json.loads, done.stdout.splitlines())
    assert setup["compile_seconds"] is None and setup["parameters"] > 0
    assert len(answers) == 2
    assert all(answer["seconds_per_step"] > 0 and 0 < answer["loss"] < 10 for answer in answers)
