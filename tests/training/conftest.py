"""The tiny run that the tests of training share."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mdpipe.console import configure_logging
from mdpipe.training import loop, metrics
from mdpipe.training.loop import TrainResult

PROGRAM = Path(__file__).parent / "interrupted_run.py"


@pytest.fixture(autouse=True)
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run here takes a second, of which measuring the machine would be a good part; processes of their own do."""
    monkeypatch.setattr(metrics, "measure_peak_flops", lambda device, dtype: 1e11)
    monkeypatch.setattr(loop, "find_bfloat16_problem", lambda device: "")


@pytest.fixture(autouse=True)
def logging_to_stderr() -> None:
    """Log messages go where the command line sends them."""
    configure_logging()


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The names of interrupted_run.py: `tiny_run`, `batch`, SETTINGS and so on."""
    return SimpleNamespace(program=PROGRAM, **runpy.run_path(str(PROGRAM)))


@pytest.fixture(scope="session")
def uninterrupted(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """The checkpoint_dir folder and the result of the tiny run in one go."""
    checkpoint_dir = tmp_path_factory.mktemp("uninterrupted")
    return checkpoint_dir, tiny.tiny_run(checkpoint_dir)


@pytest.fixture(scope="session")
def assert_same_bytes() -> Callable[[TrainResult, TrainResult], None]:
    """Weights, the objective's too, and history are equal to the last bit."""

    def check(result: TrainResult, expected: TrainResult) -> None:
        for found, wanted in (
            (result.weights, expected.weights),
            (result.objective_weights, expected.objective_weights),
        ):
            assert found.keys() == wanted.keys()
            for name, weight in wanted.items():
                assert found[name].numpy().tobytes() == weight.numpy().tobytes(), name
        assert result.history == expected.history

    return check
