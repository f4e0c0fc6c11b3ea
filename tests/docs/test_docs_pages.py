"""README.md and docs/: what they tell people to type is valid, and what they link to exists."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import TypeAdapter

from mdpipe.cli import app
from mdpipe.params import parse_params
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.sources import Source
from mdpipe.params.training import TrainConfig

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [(page, *block) for page, text in TEXTS.items() for block in BLOCK.findall(text)]
PIECES = [text for _, language, text in BLOCKS if language == "yaml"]
SECTIONS = [piece for piece in PIECES if re.match(r"(sources|datasets|runs|samplers|image_quality):", piece)]
COMMANDS = sorted(
    {
        command.strip()
        for _, language, text in BLOCKS
        if not language
        for line in text.splitlines()
        for command in line.partition(" #")[0].split("; ")
    }
)
GENERATED = {"docs/params.md", "docs/commands.md"}
GROUP = typer.main.get_group(app)


def commands(program: str) -> list[str]:
    return [command for command in COMMANDS if command.split(" ")[0] == program]


@pytest.mark.parametrize("piece", SECTIONS)
def test_every_section_of_params_on_a_page_is_valid(piece: str) -> None:
    data = yaml.safe_load((ROOT / "workflow/presets/smoke.yaml").read_text())
    anchored = f"anchor: &chars_md4 {json.dumps(data['runs']['chars_md4'])}\n{piece}"
    for section, entries in yaml.safe_load(anchored).items():
        if section == "comparisons":
            data[section] += entries
        elif section != "anchor":
            data[section] = data.get(section, {}) | entries
    for run in data["runs"].values():  # The dataset of a run may be in another piece.
        data["datasets"].setdefault(run["dataset"], data["datasets"]["docs_chars"])
    parse_params(data)


def test_all_other_yaml_is_of_an_objective_or_of_training() -> None:
    for line in [line for piece in PIECES if piece not in SECTIONS for line in piece.splitlines()]:
        for key, value in yaml.safe_load(line).items():
            if key == "objective":
                TypeAdapter(ObjectiveConfig).validate_python(value)
            else:
                TrainConfig.model_validate({"steps": 100, "batch_size": 1, key: value})


def test_there_is_a_source_of_each_kind() -> None:
    pieces = [yaml.safe_load(piece) for piece in SECTIONS if "<<" not in piece]
    shown = {source["kind"] for piece in pieces for source in piece.get("sources", {}).values()}
    assert shown >= Source.kinds.keys() - {"digits", "photos"}


@pytest.mark.parametrize("command", commands("mdpipe"))
def test_every_mdpipe_command_is_one_with_its_options(command: str) -> None:
    _, *words = shlex.split(command)
    found = GROUP
    while name := words.pop(0):
        found = found.commands[name]
        if not hasattr(found, "commands"):
            break
    found.make_context(name, words)


def test_every_command_names_what_exists() -> None:
    targets = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
    assert {command.split()[1] for command in commands("make")} <= set(targets)
    for command in commands("cp"):
        assert (ROOT / command.split()[1]).exists(), command
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key in re.findall(r"-S '?([\w.]+)=", "\n".join(COMMANDS)):
        value = params
        for part in key.split("."):
            value = value[part]
    for run in re.findall(r"(?:train@|mdpipe (?:train|generate|infill|score) )(\w+)", "\n".join(COMMANDS)):
        assert run in {*params["runs"], "RUN", "manual"}, run


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", BLOCK.sub("", TEXTS[page])):
        path = (ROOT / page).parent.joinpath(target).resolve()
        assert path.exists() or path.relative_to(ROOT).as_posix() in GENERATED, target


@pytest.mark.parametrize("page", TEXTS)
def test_every_path_in_the_repository_that_is_named_exists(page: str) -> None:
    for path in re.findall(r"`((?:src|tests|workflow|docs)/[\w/.-]+)`(?!:\n\n```python)", TEXTS[page]):
        assert (ROOT / path).exists(), path


def test_the_readme_is_one_page_and_its_run_has_six_lines() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 150
    (runs,) = re.findall(r"^runs:\n((?:  .*\n)+)", TEXTS["README.md"], re.MULTILINE)
    assert len(runs.splitlines()) <= 6
