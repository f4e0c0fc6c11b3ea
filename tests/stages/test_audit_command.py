"""`mdpipe audit`: a table and status 0 for a bound, the reason and status 1 for a number that is not a bound."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from docs.audit_figure import FILE, draw
from mdpipe.cli import app
from mdpipe.diffusion.schedules.base import Cosine
from mdpipe.evaluation.audit import COUNTEREXAMPLES
from mdpipe.params.diffusion import ObjectiveConfig, ScheduleConfig

ROOT = Path(__file__).parents[2]


def audit(*arguments: str) -> tuple[int, str, str]:
    """Return the exit status, the output without spaces at ends of lines, and the error."""
    result = CliRunner().invoke(app, ["audit", *arguments])
    error = result.exception.code if isinstance(result.exception, SystemExit) else result.exception
    return result.exit_code, "\n".join(line.rstrip() for line in result.stdout.splitlines()), str(error)


def test_a_bound_has_a_table_and_a_last_line():
    status, output, _ = audit("any_order")
    assert status == 0
    assert "Zipf, 64 tokens           exact               4.8638  4.8638  0.0000   exact  meets it" in output
    assert output.splitlines()[-1].startswith("any_order passes 10 checks: it is never below the entropy; at most ")


def test_the_allowance_for_the_boundary_terms_is_shown():
    """A copied fair bit has 0.5 bits per token; with epsilon 0.1, prior and reconstruction cost 2 x 0.1 bits."""
    status, output, _ = audit(
        "md4", "--setting", "timesteps=null", "--setting", "schedule={kind: linear, epsilon: 0.1}"
    )
    assert status == 0
    assert "0.5000  0.6000  0.1000   exact  meets it within 0.2000" in output


def test_the_last_line_covers_all_settings():
    _, output, _ = audit("md4")
    assert output.endswith(
        "at most 0.0003 bits/token above it with exact conditionals (linear), and 0.2273 in all settings"
        " (epsilon = 0.1)"
    )
    _, output, _ = audit("any_order")
    assert output.endswith("at most 0 bits/token above it with exact conditionals")


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("joint_subtokens", ["4.5437", "4.3435", "4.2660"]),
        ("unweighted_snapshot", ["0.5000"]),
        ("assumed_bytes", ["1.1311"]),
    ],
)
def test_a_counterexample_fails_with_its_figures_and_reason(name, figures):
    status, output, error = audit(name)
    assert status == 1
    assert output.count("BELOW") == len(figures)
    assert all(figure in output for figure in figures)
    assert COUNTEREXAMPLES[name].reason in error


def test_the_page_shows_what_is_printed_and_drawn():
    _, output, _ = audit("unweighted_snapshot")
    assert f"```text\n{output}\n```" in (ROOT / "docs/audit.md").read_text()
    assert draw().to_svg() == FILE.read_text()


def test_the_list_has_all_kinds_and_counterexamples():
    status, output, _ = audit("--list")
    assert status == 0
    kinds = [*ObjectiveConfig.kinds, *ScheduleConfig.kinds, *COUNTEREXAMPLES]
    assert all(f"\n  {name} " in output for name in kinds)


def test_a_schedule_is_audited_under_every_objective_with_one():
    status, output, _ = audit("polynomial", "--setting", "exponent=3.0")
    assert status == 0
    assert [line.partition(" passes")[0] for line in output.splitlines()] == ["md4", "maskgit", "sedd", "d3pm"]


def test_a_schedule_with_a_wrong_derivative_fails(monkeypatch):
    derivative = Cosine.raw_derivative
    monkeypatch.setattr(Cosine, "raw_derivative", lambda self, t: 0.9 * derivative(self, t))
    status, _, error = audit("cosine")
    assert status == 1
    assert "no bound can be below it" in error


def test_stated_settings_are_used():
    status, output, _ = audit("md4", "--setting", "timesteps=2", "--setting", "schedule={kind: cosine, epsilon: 0.2}")
    assert status == 0
    assert "md4 passes 10 checks" in output and "T =" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["md5"],
            "there is no objective, schedule or counterexample 'md5' (did you mean 'md4'?); `mdpipe audit --list`",
        ),
        (["cosinee"], "'cosinee' (did you mean 'cosine'?)"),
        (["assumed_byte"], "'assumed_byte' (did you mean 'assumed_bytes'?)"),
        (["md4", "--setting", "schedule.epsilon=0.01"], 'write --setting "schedule={kind: linear, epsilon: 0.01}"'),
        (["md4", "--setting", "epsilon=0.1"], 'write --setting "schedule={kind: linear, epsilon: 0.1}"'),
        (["md4", "--setting", "exponent=2"], 'write --setting "schedule={kind: polynomial, exponent: 2}"'),
        (
            ["md4", "--setting", "schedule=cosine", "--setting", "epsilon=0.1"],
            'write --setting "schedule={kind: cosine, epsilon: 0.1}"',
        ),
        (["md4", "--setting", "mean=1"], 'write --setting "time_distribution={kind: logit_normal, mean: 1}"'),
        (["cosine", "--setting", "schedule.epsilon=0.1"], "repeats what cosine is; write --setting epsilon=0.1"),
        (["md4", "--setting", "schedules=cosine"], "unknown key 'schedules' (did you mean 'schedule'?)"),
        (["md4", "--setting", "timesteps=0"], "timesteps: 0 is refused: must be at least 1"),
        (["md4", "--setting", "timesteps"], "write --setting KEY=VALUE"),
        (["--setting", "timesteps=2"], "--setting needs a KIND"),
        (["assumed_bytes", "--setting", "bytes=2"], "assumed_bytes has no settings"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_a_line(arguments, message):
    status, _, error = audit(*arguments)
    assert status == 1
    assert message in error
