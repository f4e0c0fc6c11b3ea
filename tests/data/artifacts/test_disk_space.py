"""Disk space is checked where it will be needed."""

import errno
import gzip
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.files import (
    DiskFullError,
    atomic_dir,
    atomic_write,
    check_disk_space,
    explain_disk_full,
    write_json,
)
from mdpipe.data.sources.files import open_decompressed
from tests.small_disk import small_disk


def test_lack_of_disk_space_is_refused_with_the_amount(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 7 * 10**9, 3 * 10**9))
    check_disk_space(tmp_path, 3 * 10**9, "tokenizing")
    assert capfd.readouterr().err == "tokenizing needs about 3.00 GB of the disk's free 3.00 GB\n"
    check_disk_space(tmp_path, 10**6, "tokenizing")
    assert not capfd.readouterr().err
    with pytest.raises(
        ValueError, match=r"tokenizing needs about 5\.00 GB in .*, where 3\.00 GB are free: .* 2\.00 GB"
    ):
        check_disk_space(tmp_path, 5 * 10**9, "tokenizing")


def test_less_than_a_tenth_of_a_gigabyte_is_in_megabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 10**10, 250_000))
    with pytest.raises(ValueError, match=r"needs about 4\.00 MB in .*, where 0\.25 MB are free: .* for 3\.75 MB"):
        check_disk_space(tmp_path, 4 * 10**6, "encoding")


def test_a_missing_folder_is_checked_where_it_will_be(tmp_path, monkeypatch):
    checked = []

    def usage(path):
        checked.append(path)
        return shutil._ntuple_diskusage(1, 0, 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check_disk_space(tmp_path / "not" / "yet", 1, "it")
    assert checked == [tmp_path]


def write_array(path: Path) -> None:
    np.save(path, np.zeros(10**6))


def append_rows(path: Path) -> None:
    with ArrayFile(path, np.float64) as file:
        file.append(np.zeros(10**6))


def write_tensors(path: Path) -> None:
    save_file({"a": np.zeros(10**6)}, path)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(10**6)}), path)


def write_frame(path: Path) -> None:
    pl.DataFrame({"a": np.random.default_rng(0).random(10**6)}).write_parquet(path)


def write_text(path: Path) -> None:
    write_json(path, {"a": "b" * 10**6})


WRITERS = [write_array, append_rows, write_tensors, write_parquet, write_frame, write_text]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_is_named_for_every_library_that_writes(tmp_path, write):
    """And what was there stays."""
    target = tmp_path / "folder"
    target.mkdir()
    (target / "file").write_text("old")
    with small_disk(10**5), pytest.raises(DiskFullError) as error, atomic_dir(target) as folder:
        write(folder / "file")
    assert "\n" not in str(error.value)
    assert re.match(
        rf"{tmp_path}/\.?folder\S* cannot be written: (File too large|No space left on device), [\d.,]+ [GM]B free; ",
        str(error.value),
    )
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_does_not_fit_leaves_only_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with small_disk(10**5), pytest.raises(DiskFullError, match=rf"^{path} cannot be written: "):
        atomic_write(path, bytes(10**6))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [ValueError("3 requested"), FileNotFoundError(errno.ENOENT, "no"), OSError("a (os error 2)"), RuntimeError("no")],
    ids=repr,
)
def test_other_errors_are_let_through(tmp_path, error):
    with pytest.raises(type(error), match=re.escape(str(error))), explain_disk_full(tmp_path):
        raise error


def test_the_error_survives_the_way_from_another_process(tmp_path):
    with pytest.raises(DiskFullError) as error, explain_disk_full(tmp_path):
        raise OSError(errno.ENOSPC, "no")
    copy = pickle.loads(pickle.dumps(error.value))  # noqa: S301
    assert (type(copy), str(copy), copy.errno) == (DiskFullError, str(error.value), errno.ENOSPC)


def test_a_full_disk_is_not_reported_as_a_broken_source(tmp_path):
    source = tmp_path / "text.gz"
    source.write_bytes(gzip.compress(b"text"))
    with pytest.raises(OSError, match="No space") as error, open_decompressed(source) as file:
        file.read()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.errno == errno.ENOSPC
