from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from mdpipe.training.checkpoint import (
    Checkpoint,
    CorruptCheckpointError,
    FingerprintMismatchError,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

FILE = "checkpoint.safetensors"


def state(step: int) -> Checkpoint:
    tensors = {"weights/a": torch.arange(6.0).reshape(2, 3) + step, "moments/0.step": torch.tensor(float(step))}
    return Checkpoint(step, tensors)


def assert_step(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None
    assert checkpoint.step == step
    for name, tensor in state(step).tensors.items():
        torch.testing.assert_close(checkpoint.tensors[name], tensor, rtol=0, atol=0)


def test_the_newest_checkpoint_is_read_and_two_are_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "f") is None
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, state(step), "f")
        assert_step(load_checkpoint(tmp_path, "f"), step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, f"{FILE}.previous"]
    assert_step(read_checkpoint(tmp_path / f"{FILE}.previous", "f"), 20)


def test_equal_states_make_equal_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), "f")
    save_checkpoint(tmp_path, state(1), "f")
    assert (tmp_path / FILE).read_bytes() == (tmp_path / f"{FILE}.previous").read_bytes()
    with safe_open(tmp_path / FILE, framework="pt") as file:
        assert len(file.metadata()) == 1


def test_another_fingerprint_is_refused_and_both_are_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), "theirs")
    with pytest.raises(FingerprintMismatchError, match=r"theirs.*ours.*Remove the folder"):
        load_checkpoint(tmp_path, "ours")
    assert_step(load_checkpoint(tmp_path, "theirs"), 1)


@given(data=st.data())
def test_a_damaged_file_is_told_from_a_good_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut off anywhere, or one bit of a tensor's bytes turned over."""
    folder = tmp_path_factory.mktemp("damaged")
    save_checkpoint(folder, state(1), "f")
    content = bytearray((folder / FILE).read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        first = 8 + int.from_bytes(content[:8], "little")
        content[data.draw(st.integers(first, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / FILE).write_bytes(content)
    with pytest.raises(CorruptCheckpointError):
        read_checkpoint(folder / FILE, "f")


def test_a_damaged_checkpoint_does_not_push_out_the_good_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step), "f")
    (tmp_path / FILE).write_bytes(b"nonsense" * 9)
    assert_step(load_checkpoint(tmp_path, "f"), 1)
    assert "cannot be read" in caplog.text
    save_checkpoint(tmp_path, state(2), "f")
    assert_step(read_checkpoint(tmp_path / f"{FILE}.previous", "f"), 1)


def test_without_a_good_checkpoint_the_run_begins_anew(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step), "f")
    for name in (FILE, f"{FILE}.previous"):
        (tmp_path / name).write_bytes(b"")
    assert load_checkpoint(tmp_path, "f") is None
