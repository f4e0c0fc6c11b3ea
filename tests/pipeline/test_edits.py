"""Whatever was edited and whichever engine ran last: everything is up to date, and nothing is trained twice."""

import random
import shutil
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import WorkingCopy

pytestmark = pytest.mark.pipeline

RUNS = ("chars_md4", "chars_ar", "digits")
RUNS_WITH_STEPS = ("chars_md4", "digits")
"""Those whose sampler has a time grid."""
CODE = "src/mdpipe/training/optimizer.py"
SNAKEMAKE, DVC = ("snakemake",), ("dvc", "repro")


class Editor:
    """Random edits of a working copy, and what they should make the engines train."""

    def __init__(self, copy: WorkingCopy, seed: int) -> None:
        self.copy = copy
        self.random = random.Random(seed)
        self.models = {self._state(run): copy.digest(f"models/{run}") for run in RUNS}

    def edit(self) -> str:
        """Make one edit; says what it did."""
        kinds = [self.param, self.sample_param, self.code, self.delete, self.corrupt, self.touch]
        kind = self.random.choices(kinds, weights=[3, 2, 1, 2, 2, 1])[0]
        return f"{kind.__name__} {kind()}"

    def param(self) -> str:
        path = f"runs.{self.random.choice(RUNS)}.train.learning_rate"
        self.copy.edit_params(path, self.random.choice([0.003, 0.002]))
        return path

    def sample_param(self) -> str:
        path = f"runs.{self.random.choice(RUNS_WITH_STEPS)}.sample.sampler.steps"
        self.copy.edit_params(path, self.random.choice([8, 6]))
        return path

    def code(self) -> str:
        path = self.copy.root / CODE
        note = "# A comment.\n"
        text = path.read_text()
        path.write_text(text.removesuffix(note) if text.endswith(note) else text + note)
        return CODE

    def delete(self) -> str:
        path = self._some_output()
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return str(path)

    def corrupt(self) -> str:
        path = self._some_file()
        broken = path.read_bytes()[:-3] + b"???"
        path.unlink()  # It may be a link into the cache, which only root can write to.
        path.write_bytes(broken)
        return str(path)

    def touch(self) -> str:
        path = self._some_file()
        path.touch()
        return str(path)

    def check(self, engine: str) -> None:
        """All is up to date, each model is the one its params and code always gave, and only new ones were trained."""
        assert self.copy.is_up_to_date(), engine
        names = list(yaml.safe_load(self.copy.lock())["stages"])
        assert names == sorted(names)
        calls = self.copy.stages_run()
        for run in RUNS:
            state, digest = self._state(run), self.copy.digest(f"models/{run}")
            trained = calls.count(f"train {run}")
            if state in self.models:
                assert digest == self.models[state]
                assert trained == 0, f"{run} was still valid and was trained again by {engine}"
            else:
                assert trained == 1
                self.models[state] = digest

    def _state(self, run: str) -> tuple[str, str, str]:
        params = yaml.safe_load((self.copy.root / "params.yaml").read_text())
        return run, str(params["runs"][run]["train"]), (self.copy.root / CODE).read_text()

    def _some_output(self) -> Path:
        folders = ("data/raw", "data/tokenizers", "data/encoded", "models", "samples", "metrics/evaluate", "results")
        inside = self.copy.root / self.random.choice(folders)
        choices = sorted(path for path in inside.iterdir() if path.name != ".snakemake_timestamp")
        return self.random.choice(choices) if choices else self.copy.root / "report"

    def _some_file(self) -> Path:
        output = self._some_output()
        files = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
        return self.random.choice([path for path in files if path.name != ".snakemake_timestamp"])


def test_any_edits_end_up_to_date_and_nothing_is_trained_twice(built_copy):
    """Each engine follows the other: the artifacts of the session were made by Snakemake."""
    editor = Editor(built_copy, seed=1)
    story = []
    for engine in (DVC, SNAKEMAKE):
        for _ in range(editor.random.randint(2, 4)):
            try:
                story.append(editor.edit())
            except FileNotFoundError:  # an earlier edit of this round deleted it
                continue
        story.append(" ".join(engine))
        print("\n".join(story))
        built_copy.run(*engine)
        editor.check(engine[0])


def test_an_edit_of_a_network_trains_runs_of_its_kind_only(built_copy):
    """For both engines: `digits` has a U-Net, and a new file makes no run stale."""
    networks = built_copy.root / "src/mdpipe/networks"
    (networks / "own.py").write_text("# Nobody's network.\n")
    with (networks / "unet.py").open("a") as file:
        file.write("# A comment.\n")
    of_runs = {f"{stage}@{run}" for stage in ("train", "sample", "evaluate") for run in RUNS}
    of_unet = {f"{stage}@digits" for stage in ("train", "sample", "evaluate")}
    assert of_runs & set(built_copy.planned()) == of_unet
    assert {stage for stage in of_runs if not built_copy.is_up_to_date(stage)} == of_unet
