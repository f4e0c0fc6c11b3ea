"""Tiny real runs, made once by the pipeline's own stages, and the command line to use them by."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mdpipe.cli import app
from mdpipe.data.sources import bundled
from mdpipe.params import Params, load_params
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.evaluate import evaluate
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from mdpipe.stages.train import train

SMOKE = Path(__file__).parents[2] / "workflow/presets/smoke.yaml"


@pytest.fixture(scope="session", autouse=True)
def packages_are_read_once() -> Iterator[None]:
    """Parsing a package takes seconds, and most plans and downloads here ask for the same one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled, "_package", cache(bundled._package))
        yield


@pytest.fixture(scope="session")
def params() -> Params:
    """Return the smoke preset: md4 and autoregressive on characters, genmd4 on subwords, md4 on digits by class."""
    return load_params(SMOKE)


@pytest.fixture(scope="session")
def trained_place(params: Params, make_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder in which all of its runs are trained and evaluated."""

    def make(place: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            for source in ("pydantic_docs", "digits"):
                download(params, source)
            for dataset in params.datasets:
                fit_tokenizer(params, dataset)
                encode(params, dataset)
            for run in params.runs:
                train(params, run)
                evaluate(params, run)

    return make_once("trained", make)


@pytest.fixture
def place(trained_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the test runs."""
    shutil.copytree(trained_place, tmp_path, ignore=shutil.ignore_patterns(".mdpipe"), dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mdpipe(place: Path) -> Callable[..., Result]:
    """mdpipe("generate", "chars_md4", "--count", 2): runs the command in `place`."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def refusal(mdpipe: Callable[..., Result], place: Path) -> Callable[..., str]:
    """Runs a command that must fail with one line and write nothing; gives the line."""

    def refuse(*arguments: object) -> str:
        before = sorted(place.iterdir())
        result = mdpipe(*arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        assert result.output.startswith("mdpipe: ")
        assert "\n" not in result.output.rstrip("\n")
        assert sorted(place.iterdir()) == before
        return result.output

    return refuse
