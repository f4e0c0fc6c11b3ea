"""A run that is killed and started again ends like one that was not, to the byte."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor

from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.training.loop import TrainResult

Same = Callable[[TrainResult, TrainResult], None]
PATIENCE = 60


def start(program: Path, scratch: Path, moment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, program, scratch, moment], stderr=subprocess.PIPE, text=True)


def test_killed_again_and_again_it_ends_with_the_same_bytes(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], assert_same_bytes: Same, tmp_path: Path
) -> None:
    """Between two checkpoints, at each moment of saving one, and before the first one there was."""
    whole, expected = uninterrupted
    moments = {
        "step:2": None,
        "step:5": 3,
        "half written:6": 3,
        "renamed once:6": 3,
        "flushed:9": 6,
        "step:10": 9,
    }
    came_from = None
    for moment, newest in moments.items():
        process = start(tiny.program, tmp_path, moment)
        _, log = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL, log
        assert ("going on from" in log) == (came_from is not None), log
        if came_from is not None:
            assert f"checkpoint of step {came_from} of 12" in log
        came_from = newest
    assert_same_bytes(tiny.tiny_run(tmp_path), expected)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == (whole / "checkpoint.safetensors").read_bytes()


def test_what_an_objective_learns_goes_on_like_the_weights(
    tiny: SimpleNamespace, assert_same_bytes: Same, tmp_path: Path
) -> None:
    """GenMD4's exponents, stopped in the eighth step; the whole run has moved them."""

    class StoppedError(Exception):
        pass

    def stopping(step: int) -> Tensor:
        if step == 7:
            raise StoppedError
        batch: Tensor = tiny.batch(step)
        return batch

    def fresh() -> GenMD4:
        return GenMD4(tiny.VOCABULARY, initial_exponent=1.0, exponent_learning_rate=0.1)

    expected = tiny.tiny_run(tmp_path / "whole", objective=fresh())
    with pytest.raises(StoppedError):
        tiny.tiny_run(tmp_path / "stopped", stopping, objective=fresh())
    assert_same_bytes(tiny.tiny_run(tmp_path / "stopped", objective=fresh()), expected)
    moved = (expected.objective_weights["schedule.raw"] - fresh().schedule.raw.detach()).abs()
    assert (moved > 0.01).all()


def test_a_finished_run_is_read_from_its_checkpoint(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], assert_same_bytes: Same, tmp_path: Path
) -> None:
    scratch, expected = uninterrupted
    shutil.copytree(scratch, tmp_path / "copy")

    def no_batches(step: int) -> None:
        pytest.fail(f"step {step} was taken again")

    assert_same_bytes(tiny.tiny_run(tmp_path / "copy", no_batches), expected)


@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.999])
def test_a_truncated_checkpoint_is_passed_over_for_the_previous_one(
    tiny: SimpleNamespace,
    uninterrupted: tuple[Path, TrainResult],
    assert_same_bytes: Same,
    tmp_path: Path,
    kept: float,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scratch, expected = uninterrupted
    shutil.copytree(scratch, tmp_path / "copy")
    newest = tmp_path / "copy" / "checkpoint.safetensors"
    content = newest.read_bytes()
    newest.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    assert_same_bytes(tiny.tiny_run(tmp_path / "copy"), expected)
    assert "going on from the checkpoint of step 9 of 12" in capfd.readouterr().err


def test_a_second_process_waits_and_goes_on_from_the_checkpoint_of_the_first(
    tiny: SimpleNamespace,
    uninterrupted: tuple[Path, TrainResult],
    assert_same_bytes: Same,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = start(tiny.program, tmp_path, "stuck:7")
    results: list[TrainResult] = []
    second = threading.Thread(target=lambda: results.append(tiny.tiny_run(tmp_path)), daemon=True)
    try:
        wait_for(lambda: (tmp_path / "stuck").exists())
        second.start()
        log = ""

        def second_waits() -> bool:
            nonlocal log
            log += capfd.readouterr().err
            return f"process {first.pid} on " in log and "waiting until it ends" in log

        wait_for(second_waits)
        assert not results
    finally:
        first.kill()
        first.communicate()
    second.join(PATIENCE)
    assert_same_bytes(results[0], uninterrupted[1])
    assert "going on from the checkpoint of step 6 of 12" in capfd.readouterr().err


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
