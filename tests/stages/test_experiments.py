"""DVC experiments: which params they change, by DVC's own way of setting them."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from mdpipe.params.root import ParamsError
from mdpipe.params.strict_yaml import read_yaml
from mdpipe.stages.resolve import flatten_params, log_experiment

ROOT = Path(__file__).parents[2]

SHARED = """\
runs:
  one:
    network: &network {kind: transformer,
      num_layers: 2}
    train: &train {steps: 10, optimizer: {kind: adamw, beta2: 0.9}}
  other:
    network: *network
    train: {<<: *train, steps: 20}
"""


@pytest.fixture
def set_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that sets a value in a committed params.yaml as `dvc exp run -S` does."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(SHARED)
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (["init", "-q"], ["add", "params.yaml"], [*author, "commit", "-qm", "Add params"]):
        subprocess.run(["git", *command], check=True)

    def set_value(assignment: str) -> None:
        apply_overrides(tmp_path / "params.yaml", [assignment])

    return set_value


def test_all_params_that_an_experiment_changes_are_logged(set_params, caplog):
    """Also those of another run, whose mapping the alias shares."""
    caplog.set_level(logging.INFO)
    set_params("runs.one.train.steps=30")
    set_params("runs.other.network.num_layers=3")
    log_experiment("HEAD")
    assert caplog.messages == [
        "runs.one.network.num_layers: 3, before 2",
        "runs.one.train.steps: 30, before 10",
        "runs.other.network.num_layers: 3, before 2",
    ]


def test_an_experiment_whose_value_dvc_loses_is_refused(set_params):
    log_experiment("HEAD")
    set_params("runs.one.network.num_layers=3")
    with pytest.raises(ParamsError, match=r"the experiment changes no param: .* by an alias \(`\*name`\)"):
        log_experiment("HEAD")


def test_every_number_of_the_default_params_can_be_swept_over(tmp_path):
    """An experiment sets each of them, and in one place only."""
    params = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", params)
    before = dict(flatten_params(read_yaml(params.read_bytes())))
    numbers = {key: value for key, value in before.items() if type(value) in (int, float)}
    assert len(numbers) > 100
    for part in (list(numbers)[::2], list(numbers)[1::2]):
        overrides = {key: 2 * numbers[key] + 1 for key in part}
        shutil.copy(ROOT / "params.yaml", params)
        apply_overrides(params, [f"{key}={value}" for key, value in overrides.items()])
        assert dict(flatten_params(read_yaml(params.read_bytes()))) == before | overrides
