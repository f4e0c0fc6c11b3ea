"""dvc.lock says what an artifact was made with, whatever is edited while a stage runs and wherever the stage runs."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import RUN, WorkingCopy, planned, wait_for_checkpoints

pytestmark = pytest.mark.pipeline

CODE = "src/mdpipe/training/optimizer.py"
DATA = "data/encoded/docs_chars/unigram.npy"
ENGINES = (("snakemake",), ("dvc", "repro"))
PARAM = f"runs.{RUN}.train.learning_rate"


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine[0])
def test_edits_while_training_leave_it_stale_and_lose_nothing(untrained, uninterrupted, engine):
    files = {name: (untrained.root / name).read_bytes() for name in ("params.yaml", CODE, DATA)}
    process = untrained.start(*engine)
    wait_for_checkpoints(untrained, process)
    untrained.edit_params(PARAM, 0.001)
    for name in (CODE, DATA):
        untrained.rewrite(name, files[name] + b"\n")
    assert process.wait() != 0
    said = (untrained.root.parent / "output.log").read_text()
    stale = next(line for line in said.splitlines() if f"train@{RUN} is stale" in line)
    assert CODE in stale and DATA in stale
    assert "params" not in stale  # The stage reads the values that were resolved when the engine started.
    assert f"train@{RUN}" not in yaml.safe_load(untrained.lock())["stages"]
    assert not untrained.is_up_to_date()

    # With the inputs of before, the finished training is found by its run hash.
    for name, content in files.items():
        untrained.rewrite(name, content)
    untrained.run(*engine)
    assert untrained.is_up_to_date()
    assert untrained.digest(f"models/{RUN}") == uninterrupted.digest(f"models/{RUN}")
    assert untrained.lock() == uninterrupted.lock()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine[0])
def test_params_edited_in_training_belong_to_the_next_one(untrained, uninterrupted, engine):
    """dvc.lock records the values that the stage ran with, and the engines call the run stale afterwards.

    Snakemake resolves the params before it plans. DVC compares stages with params.resolved.yaml as it is: at first it
    only calls `resolve` stale, and the training once `resolve`, the first stage of any `dvc repro`, has run.
    """
    train = f"train@{RUN}"
    process = untrained.start(*engine)
    wait_for_checkpoints(untrained, process)
    untrained.edit_params(PARAM, 0.001)
    assert process.wait() == 0
    assert untrained.digest(f"models/{RUN}") == uninterrupted.digest(f"models/{RUN}")
    assert untrained.lock() == uninterrupted.lock()
    assert not untrained.is_up_to_date()
    if engine == ENGINES[0]:
        assert train in untrained.planned()
    else:
        assert untrained.is_up_to_date(train)
        untrained.run("dvc", "repro", "resolve")
        assert f"runs.{RUN}.train" in untrained.run("dvc", "status", train)


def test_an_experiment_in_a_copy_runs_the_code_of_the_copy(built_copy):
    """The working copy goes on: what waits in the queue runs the code that it was queued with."""
    built_copy.commit()
    code = built_copy.root / CODE
    text = code.read_text()
    built_copy.run("dvc", "exp", "run", "--queue", "-n", "queued", "-S", "runs.digits.train.steps=6", "train@digits")
    code.write_text("raise RuntimeError('code of the working copy')\n")
    built_copy.run("dvc", "exp", "run", "--run-all", "-j", "1")
    assert code.read_text() != text
    references = built_copy.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (queued,) = [reference for reference in references if reference.endswith("/queued")]
    lock = yaml.safe_load(built_copy.run("git", "show", f"{queued}:dvc.lock"))["stages"]["train@digits"]
    assert lock["params"]["params.resolved.yaml"]["runs.digits.train"]["steps"] == 6
    assert lock["deps"] == yaml.safe_load(built_copy.lock())["stages"]["train@digits"]["deps"]
    # Of what is edited when it starts, a copy has the edited state.
    said = built_copy.run(
        "dvc", "exp", "run", "--temp", "-S", "runs.digits.train.steps=7", "train@digits", succeeds=False
    )
    assert "code of the working copy" in said


def test_snakemake_plans_nothing_where_dvc_calls_nothing_stale(built_copy, commands, tmp_path):
    """Times of files and folders, and all that the engine remembers, do not count."""
    source = built_copy.root / "src/mdpipe/training"
    (source / ".optimizer.py.swp").touch()
    touch_new(source / "__pycache__/other.cpython-399.pyc")
    (built_copy.root / CODE).touch()  # Saved unchanged.
    for path in (built_copy.root / "data/raw/digits").iterdir():
        path.touch()
    touch_new(built_copy.root / ".snakemake/incomplete/left")  # Interrupted, and then finished by DVC.
    assert built_copy.planned() == []
    (source / ".optimizer.py.swp").unlink()
    shutil.rmtree(built_copy.root / ".snakemake")
    shutil.rmtree(built_copy.root / ".mdpipe/requests")
    assert built_copy.planned() == []
    clone = pulled_clone(built_copy, commands, tmp_path)
    assert clone.is_up_to_date()
    assert clone.planned() == []


def test_snakemake_plans_what_dvc_calls_stale_and_what_follows(built_copy):
    built_copy.edit_params("runs.digits.sample.sampler.steps", 6)
    said = built_copy.run("snakemake", "--dry-run")
    assert planned(said) == ["measure_images@digits", "report", "sample@digits"]
    assert "Sample from digits" in said
    assert max(map(len, said.splitlines())) < 150
    built_copy.edit_params("runs.chars_ar.train.steps", 20)
    of_chars_ar = {f"{stage}@chars_ar" for stage in ("train", "sample", "evaluate")}
    of_digits = {"sample@digits", "measure_images@digits"}
    assert set(built_copy.planned()) == {*of_chars_ar, "compare_samplers@chars_md4", *of_digits, "report"}


def touch_new(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()


def pulled_clone(copy: WorkingCopy, commands: Path | None, directory: Path) -> WorkingCopy:
    """Return a clone that has its artifacts from a remote of DVC and has run nothing."""
    copy.commit()
    copy.run("dvc", "remote", "add", "--local", "--default", "remote", str(directory / "remote"))
    copy.run("dvc", "push", "--quiet")
    place = directory / "pulled"
    place.mkdir()
    copy.run("git", "clone", "--quiet", str(copy.root), str(place / "copy"))
    clone = WorkingCopy(place / "copy", place / "calls", commands)
    clone.run("dvc", "remote", "add", "--local", "--default", "remote", str(directory / "remote"))
    clone.run("dvc", "pull", "--quiet")
    return clone
