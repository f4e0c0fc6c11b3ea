"""The help of every command shows all that its docstring and its options' texts say."""

import re
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from mdpipe.cli import app
from mdpipe.commands.interactive import SUFFIXES
from mdpipe.commands.score import PROTOCOLS
from mdpipe.params.diffusion import TimeGrid
from mdpipe.params.sampling import SamplerConfig

GROUP = typer.main.get_group(app)
COMMANDS = {(name,): command for name, command in GROUP.commands.items()}
COMMANDS |= {("bench", name): command for name, command in COMMANDS["bench",].commands.items()} | {(): GROUP}


def help_text(*command: str) -> str:
    """The help on a wide screen, in one line and without the boxes around it."""
    result = CliRunner().invoke(app, [*command, "--help"], env={"TERMINAL_WIDTH": "2000", "COLUMNS": "2000"})
    assert result.exit_code == 0
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


def said(text: str) -> str:
    """What an author wrote, without the backslash that keeps a bracket from being markup."""
    return " ".join(text.replace("\\[", "[").split())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_loses_no_word_of_what_was_written(command: tuple[str, ...]) -> None:
    help_of, text = COMMANDS[command], help_text(*command)
    assert said(help_of.help) in text
    for parameter in help_of.params:
        assert said(getattr(parameter, "help", None) or "") in text
        assert parameter.name is None or getattr(parameter, "metavar", None) is None or parameter.metavar in text
    for name, listed in getattr(help_of, "commands", {}).items():
        assert f"{name} {said(listed.help.split(chr(10) * 2)[0])}" in text


def test_every_command_has_help() -> None:
    assert len(COMMANDS) > 20
    assert all(command.help for command in COMMANDS.values())


@pytest.mark.parametrize("command", ["generate", "infill"])
def test_help_names_every_sampler_setting_and_file_type(command: str) -> None:
    text = help_text(command)
    settings = {key for config in SamplerConfig.kinds.values() for key in config.model_fields} - {"kind", "time_grid"}
    assert settings > {"decode", "eta"}
    for word in [
        *SamplerConfig.kinds,
        *settings,
        "--time-grid",
        *SUFFIXES["texts"],
        *set(SUFFIXES["images"]) - {".jpeg"},
    ]:
        assert re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", text), word
    assert "(1 + s) conditional - s unconditional" in text


def test_fixed_choices_of_an_option_are_its_placeholder() -> None:
    assert f"--protocol {'|'.join(PROTOCOLS)} " in help_text("score")
    assert f"--time-grid {'|'.join(get_args(TimeGrid))} " in help_text("generate")
