"""A run that is killed and started again ends like one that was not, to the byte."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from torch import Tensor

from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.params.diffusion import GenMD4Config
from mdpipe.training.loop import TrainResult

pytestmark = pytest.mark.slow

Same = Callable[[TrainResult, TrainResult], None]
PATIENCE = 300
"""Seconds after which a process hangs, however busy the machine is."""


KILLS, LONG = 20, 90
"""Kills, and the steps of a run that has room for them."""
MOMENTS = ("step", "half written", "flushed", "named")


def start(program: Path, checkpoint_dir: Path, steps: int, *moments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, program, checkpoint_dir, str(steps), *moments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def random_moments(seed: int, steps: int, every: int) -> Iterator[tuple[str, int | None]]:
    """Moments to be killed at, one after the other, and the step that the process killed there goes on from."""
    random = Random(seed)
    saved = 0
    for _ in range(KILLS):
        moment = random.choice(MOMENTS)
        # At most the second checkpoint from here, so that twenty of them fit into the run.
        step = saved + (random.randrange(2 * every) if moment == "step" else every * random.randint(1, 2))
        if step >= steps:
            return
        yield f"{moment}:{step}", saved or None
        saved = step if moment == "named" else (step if moment == "step" else step - 1) // every * every


def test_run_killed_at_random_moments_ends_with_equal_bytes(
    tiny: SimpleNamespace, assert_same_bytes: Same, tmp_path: Path
) -> None:
    """Between two checkpoints, at each moment of saving one, and before the first one there was."""
    settings = tiny.SETTINGS.model_copy(update={"steps": LONG})
    expected = tiny.tiny_run(tmp_path / "whole", settings=settings)
    moments = list(random_moments(0, LONG, settings.save_every))
    assert len(moments) == KILLS
    assert {moment.partition(":")[0] for moment, _ in moments} == set(MOMENTS)
    _, log = start(tiny.program, tmp_path / "killed", LONG, *(moment for moment, _ in moments)).communicate(
        timeout=PATIENCE
    )
    assert log.count(f"ended with {-signal.SIGKILL}") == KILLS, log
    for part, (moment, came_from) in zip(log.split("ended with"), moments, strict=False):
        assert ("resuming from" in part) == (came_from is not None), (moment, part)
        if came_from is not None:
            assert f"checkpoint of step {came_from} of {LONG}" in part
    assert_same_bytes(tiny.tiny_run(tmp_path / "killed", settings=settings), expected)
    newest = f"step-{LONG:09d}.safetensors"
    assert (tmp_path / "killed" / newest).read_bytes() == (tmp_path / "whole" / newest).read_bytes()


SIGNALS = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
"""Signals, and the exit status of a training that gets one."""


@pytest.fixture(scope="module")
def signaled(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[signal.Signals, str]]:
    """Return the folder of runs that get a signal in step 7, and the log of each."""
    folder = tmp_path_factory.mktemp("signaled")
    moments = [f"signal {number.value}:7" for number in SIGNALS]
    _, log = start(tiny.program, folder, 12, *moments).communicate(timeout=PATIENCE)
    return folder, dict(zip(SIGNALS, re.findall(r".*?ended with \d+\n", log, re.DOTALL), strict=True))


@pytest.mark.parametrize(("number", "status"), SIGNALS.items(), ids=str)
def test_signal_saves_the_step_and_training_resumes_there(
    tiny: SimpleNamespace,
    uninterrupted: tuple[Path, TrainResult],
    signaled: tuple[Path, dict[signal.Signals, str]],
    assert_same_bytes: Same,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    """Step 7, that the signal comes in, is not a step that a checkpoint is due after."""
    folder, logs = signaled
    assert f"ended with {status}\n" in logs[number]
    assert "interrupted after step 8 of 12; run the same command to resume" in logs[number]
    assert_same_bytes(tiny.tiny_run(folder / str(number.value)), uninterrupted[1])
    assert "resuming from the checkpoint of step 8 of 12" in capfd.readouterr().err


@pytest.mark.parametrize("recipe", ["MUON", "RECIPE"])
def test_objective_parameters_and_muon_state_resume_bit_exactly(
    tiny: SimpleNamespace, assert_same_bytes: Same, tmp_path: Path, recipe: str
) -> None:
    """GenMD4's exponents, trained beside Muon and stopped in the eighth step; the whole run has moved them."""
    settings = getattr(tiny, recipe)

    class StoppedError(Exception):
        pass

    def stopping(step: int) -> Tensor:
        if step == 7:
            raise StoppedError
        batch: Tensor = tiny.batch(step)
        return batch

    def fresh() -> GenMD4:
        return GenMD4(GenMD4Config(exponent_learning_rate=0.1), tiny.VOCABULARY)

    expected = tiny.tiny_run(tmp_path / "whole", settings=settings, objective=fresh())
    with pytest.raises(StoppedError):
        tiny.tiny_run(tmp_path / "stopped", stopping, settings=settings, objective=fresh())
    assert_same_bytes(tiny.tiny_run(tmp_path / "stopped", settings=settings, objective=fresh()), expected)
    moved = (expected.objective_weights["schedule.raw"] - fresh().schedule.raw.detach()).abs()
    assert (moved > 0.01).all()


def test_a_finished_run_is_read_from_its_checkpoint(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], assert_same_bytes: Same, tmp_path: Path
) -> None:
    checkpoint_dir, expected = uninterrupted
    shutil.copytree(checkpoint_dir, tmp_path / "copy")

    def no_batches(step: int) -> None:
        pytest.fail(f"step {step} was taken again")

    assert_same_bytes(tiny.tiny_run(tmp_path / "copy", no_batches), expected)


@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.999])
def test_truncated_checkpoint_is_skipped_for_the_previous_one(
    tiny: SimpleNamespace,
    uninterrupted: tuple[Path, TrainResult],
    assert_same_bytes: Same,
    tmp_path: Path,
    kept: float,
    capfd: pytest.CaptureFixture[str],
) -> None:
    checkpoint_dir, expected = uninterrupted
    shutil.copytree(checkpoint_dir, tmp_path / "copy")
    newest = tmp_path / "copy" / "step-000000012.safetensors"
    content = newest.read_bytes()
    newest.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    assert_same_bytes(tiny.tiny_run(tmp_path / "copy"), expected)
    assert "resuming from the checkpoint of step 9 of 12" in capfd.readouterr().err


def test_a_second_process_resumes_from_the_firsts_state(
    tiny: SimpleNamespace,
    uninterrupted: tuple[Path, TrainResult],
    assert_same_bytes: Same,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = start(tiny.program, tmp_path, 12, "stuck:7")
    results: list[TrainResult] = []
    second = threading.Thread(target=lambda: results.append(tiny.tiny_run(tmp_path)), daemon=True)
    try:
        wait_for(lambda: (tmp_path / "stuck").exists())
        second.start()
        log = ""

        def second_waits() -> bool:
            nonlocal log
            log += capfd.readouterr().err
            return re.search(r"process \d+ on ", log) and "waiting until it ends" in log

        wait_for(second_waits)
        assert not results
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    second.join(PATIENCE)
    assert_same_bytes(results[0], uninterrupted[1])
    assert "resuming from the checkpoint of step 6 of 12" in capfd.readouterr().err


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
