"""The files of docs/extending.md are found by their names, trained with and sampled from."""

import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FILE = re.compile(r"`(src/mdpipe/\S+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)

OWN = {
    "objective": {"kind": "tempered", "schedule": {"kind": "root", "degree": 2.0}},
    "network": {"kind": "neighbors", "hidden_size": 16, "num_layers": 2},
    "sample": {"count": 2, "sampler": {"kind": "halves"}},
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's four files in it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    files = FILE.findall((ROOT / "docs/extending.md").read_text())
    assert len(files) == 4
    for name, text in files:
        assert not (folder / name).exists()
        (folder / name).write_text(text)
    shutil.copy(ROOT / "constraints.txt", folder)
    return folder


PROGRAM = """
import json, sys
from mdpipe.cli import app

codes = []
for command in json.loads(sys.argv[1]):
    try:
        app(command)
    except SystemExit as ended:
        codes.append(ended.code)
print(json.dumps(codes))
"""
"""Runs commands in one process, since starting one takes most of its time. The last line of the output has the exit
codes."""


def exit_codes(copy: Path, *commands: list[str]) -> list[Any]:
    """Return the exit codes of commands of the copy; a text is the error of a command that exits with 1."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    program = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(program, cwd=copy, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    codes: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return codes


def write_params(copy: Path, name: str = "params.yaml", **changes: Any) -> None:
    """Write the smoke preset with a run of the page's kinds, changed at dotted paths."""
    params = yaml.safe_load((ROOT / "workflow/presets/smoke.yaml").read_text())
    run = params["runs"]["chars_md4"]
    run.update(deepcopy(OWN))
    params["runs"] = {"mine": run}
    del params["comparisons"], params["samplers"], params["zero_shot"], params["image_quality"]
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = run
        for key in parents:
            section = section[key]
        section[last] = value
    (copy / name).write_text(yaml.safe_dump(params))


def test_kinds_of_the_page_are_trained_evaluated_and_sampled(copy):
    write_params(copy)
    data = [["check"], ["download", "pydantic_docs"], ["fit-tokenizer", "docs_chars"], ["encode", "docs_chars"]]
    run = [["train", "mine"], ["evaluate", "mine"], ["sample", "mine"]]
    options = ["generate", "mine", "--sampler", "ancestral", "--steps", "4"]
    assert exit_codes(copy, *data, *run, options) == [0] * 8
    assert "mix.1.weight" in load_file(copy / "models/mine/model.safetensors")
    assert np.load(copy / "samples/mine/tokens.npy").max() < 27


def test_the_objective_of_the_page_is_a_bound(copy):
    """Under all built-in schedules, and under the page's own."""
    own_schedule = ["--setting", "power=0.3", "--setting", "schedule={kind: root, degree: 2.0}"]
    assert exit_codes(copy, ["audit", "tempered"], ["audit", "tempered", *own_schedule]) == [0, 0]


WRONG = [
    ({"objective__power": "much"}, "runs.mine.objective.power: 'much' is refused: must be a number"),
    (
        {"objective__schedule": "root"},
        "runs.mine.objective.schedule.degree: is missing; must be a number (Deg",
    ),
    (
        {"network__layers": 3},
        "runs.mine.network: unknown key 'layers', now `num_layers`; allowed: kind, hidden",
    ),
    (
        {"network__kind": "neighbirs"},
        "or the name of an added file of mdpipe.networks (did you mean 'neighbors'?)",
    ),
    ({"network__dropout": 0.1}, "runs.mine.network: unknown key 'dropout'; allowed: kind, hidden"),
    ({"dataset": "digits"}, "runs.mine.dataset: 'digits' is refused: a neighbors needs text and 'digits' is images"),
    ({"class_cond": {}}, "runs.mine.class_cond: a neighbors takes no classes: must be null"),
    ({"sample__sampler__kind": "thirds"}, "runs.mine.sample.sampler.kind: 'thirds' is refused"),
    ({"sample__sampler__steps": 4}, "runs.mine.sample.sampler: unknown key 'steps'; allowed: kind, remainder"),
]
"""Changes of params, and how they are refused."""


@pytest.fixture(scope="module")
def refusals(copy: Path) -> list[Any]:
    """Return the error of `mdpipe check` for each."""
    files = [f"wrong{number}.yaml" for number in range(len(WRONG))]
    for file, (changes, _) in zip(files, WRONG, strict=True):
        write_params(copy, file, **changes)
    return exit_codes(copy, *(["check", file] for file in files))


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[" ".join(changes) for changes, _ in WRONG])
def test_a_wrong_setting_of_an_added_kind_is_refused(refusals, number):
    assert WRONG[number][1] in refusals[number]


def test_files_of_the_page_pass_the_checks_of_the_package(copy):
    files = [str(copy / name) for name, _ in FILE.findall((ROOT / "docs/extending.md").read_text())]
    # Unused arguments of overridden methods are marked in the package; on a page the marks would be clutter.
    checks = [["ruff", "check", "--ignore", "ARG002"], ["ruff", "format", "--check"]]
    for check in checks:
        command = [sys.executable, "-m", *check, "--config", str(ROOT / "pyproject.toml"), *files]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
