import errno
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from mdpipe.data.artifacts.files import DiskFullError
from mdpipe.training import checkpoint
from mdpipe.training.checkpoint import (
    Checkpoint,
    CorruptCheckpointError,
    RunHashMismatchError,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from mdpipe.training.distributed import World
from tests.small_disk import small_disk

ALONE = World()


def save(folder: Path, step: int, run_hash: str = "f", keep: int = 2) -> Path:
    """Save the state of a step; give the file that it must be in."""
    save_checkpoint(folder, state(step), run_hash, keep, ALONE)
    return folder / f"step-{step:09d}.safetensors"


def load(folder: Path, run_hash: str = "f") -> Checkpoint | None:
    return load_checkpoint(folder, run_hash, state(0).tensors.__getitem__, ALONE)


def read(place: Path) -> Checkpoint:
    return read_checkpoint(place, "f", state(0).tensors.__getitem__, ALONE)


def state(step: int) -> Checkpoint:
    tensors = {"weights/a": torch.arange(6.0).reshape(2, 3) + step, "optimizer/0.step": torch.tensor(float(step))}
    return Checkpoint(step, tensors)


def assert_step(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None
    assert checkpoint.step == step
    for name, tensor in state(step).tensors.items():
        torch.testing.assert_close(checkpoint.tensors[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_newest_checkpoint_is_read_and_the_newest_few_are_kept(tmp_path: Path, keep: int) -> None:
    assert load(tmp_path) is None
    files = []
    for step in (10, 20, 30, 1000):
        files.append(save(tmp_path, step, keep=keep))
        assert_step(load(tmp_path), step)
    assert sorted(tmp_path.iterdir()) == sorted(files[-keep:])
    assert_step(read(files[-keep]), [10, 20, 30, 1000][-keep])


def test_equal_states_make_equal_bytes(tmp_path: Path) -> None:
    first = save(tmp_path, 1).read_bytes()
    assert save(tmp_path, 1).read_bytes() == first
    with safe_open(save(tmp_path, 1), framework="pt") as file:
        assert len(file.metadata()) == 1


def test_another_run_hash_is_refused_and_both_are_named(tmp_path: Path) -> None:
    save(tmp_path, 1, "theirs")
    with pytest.raises(RunHashMismatchError, match=r"theirs.*ours.*Remove the folder"):
        load(tmp_path, "ours")
    assert_step(load(tmp_path, "theirs"), 1)


@given(data=st.data())
def test_corrupt_file_is_detected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut off anywhere, or one bit of a tensor's bytes turned over."""
    file = save(tmp_path_factory.mktemp("damaged"), 1)
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        first = 8 + int.from_bytes(content[:8], "little")
        content[data.draw(st.integers(first, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with pytest.raises(CorruptCheckpointError):
        read(file)


def test_corrupt_checkpoint_does_not_push_out_a_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, damaged = save(tmp_path, 1), save(tmp_path, 2)
    damaged.write_bytes(b"nonsense" * 9)
    assert_step(load(tmp_path), 1)
    assert "cannot be read" in caplog.text
    save(tmp_path, 2)
    assert_step(read(good), 1)


def test_without_a_good_checkpoint_the_run_begins_anew(tmp_path: Path) -> None:
    for file in (save(tmp_path, 1), save(tmp_path, 2)):
        file.write_bytes(b"")
    assert load(tmp_path) is None


def test_a_disk_that_fills_up_leaves_what_was_saved_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    assert_step(load(tmp_path), 1)


def test_checkpoint_that_does_not_fit_is_named_and_others_stay(tmp_path: Path) -> None:
    save(tmp_path, 10)
    large = Checkpoint(20, {"weights/a": torch.zeros(10**6)})
    place = tmp_path / "step-000000020.safetensors"
    with small_disk(10**5), pytest.raises(DiskFullError, match=rf"^{place} cannot be written: File too large, "):
        save_checkpoint(tmp_path, large, "f", 2, ALONE)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010.safetensors"]
    assert_step(load(tmp_path), 10)
