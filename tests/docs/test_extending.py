"""docs/extending.md is right: its files, put where it says, are found by their names, trained and sampled from."""

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
    "objective": "tempered",
    "diffusion": {"schedule": {"kind": "root", "degree": 2.0}, "power": 0.5},
    "network": {"kind": "neighbors", "width": 16, "layers": 2},
}
SAMPLER = {"sampler": {"kind": "halves", "remainder": 0}, "steps": None}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's four files in it."""
    place = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    files = FILE.findall((ROOT / "docs/extending.md").read_text())
    assert len(files) == 4
    for name, text in files:
        assert not (place / name).exists()
        (place / name).write_text(text)
    shutil.copy(ROOT / "constraints.txt", place)
    return place


def mdpipe(copy: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    command = [sys.executable, "-m", "mdpipe", *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=120)


def write_params(copy: Path, **changes: Any) -> None:
    """The smoke preset with a run of one's own kinds throughout, changed at dotted paths."""
    params = yaml.safe_load((ROOT / "workflow/presets/smoke.yaml").read_text())
    run = params["runs"]["letters"]
    run.update(deepcopy(OWN))
    run["sample"].update(deepcopy(SAMPLER))
    params["runs"] = {"mine": run}
    params["comparisons"], params["samplers"]["runs"], params["zero_shot"]["runs"] = [], {}, []
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = run
        for key in parents:
            section = section[key]
        section[last] = value
    (copy / "params.yaml").write_text(yaml.safe_dump(params))


def test_the_pages_kinds_are_trained_evaluated_and_sampled_from(copy):
    write_params(copy)
    stages = [["check"], ["download", "pydantic_docs"], ["tokenizer", "docs_letters"], ["encode", "docs_letters"]]
    for stage in [*stages, ["train", "mine"], ["evaluate", "mine"], ["sample", "mine"]]:
        done = mdpipe(copy, *stage)
        assert done.returncode == 0, done.stderr
    assert "mix.1.weight" in load_file(copy / "models/mine/model.safetensors")
    assert np.load(copy / "samples/mine/tokens.npy").max() < 27
    assert mdpipe(copy, "generate", "mine", "--sampler", "reveal_first", "--steps", "4").returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diffusion__power": "much"}, "runs.mine.diffusion.power: 'much' is refused: must be a number"),
        ({"diffusion__schedule": {"kind": "root"}}, "runs.mine.diffusion.schedule.degree: is missing"),
        (
            {"network__depth": 3},
            "runs.mine.network: unknown key 'depth' (did you mean 'width'?); allowed: kind, width, layers",
        ),
        ({"sample__sampler__kind": "thirds"}, "runs.mine.sample.sampler.kind: 'thirds' is refused"),
        ({"sample__steps": 4}, "runs.mine.sample.steps: 4 is refused: must be null for the sampler halves"),
    ],
)
def test_a_wrong_setting_of_ones_own_kind_is_refused_like_any_other(copy, changes, message):
    write_params(copy, **changes)
    done = mdpipe(copy, "check")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_every_file_on_the_page_is_as_the_package_s_own_code_must_be(copy):
    files = [str(copy / name) for name, _ in FILE.findall((ROOT / "docs/extending.md").read_text())]
    # Arguments that a method must have and does not need are marked in the package, which a page would only clutter.
    checks = [["ruff", "check", "--ignore", "ARG002"], ["ruff", "format", "--check"]]
    for check in checks:
        command = [sys.executable, "-m", *check, "--config", str(ROOT / "pyproject.toml"), *files]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
