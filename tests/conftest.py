"""Shared settings of the tests."""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# One thread a process: tests run side by side, and small tensors gain nothing from more.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # Otherwise a process that compiles starts others, which load torch.
# The compiler knows the vector instructions; trying whether they work starts torch once more for each kind of them.
os.environ["TORCHINDUCTOR_VEC_ISA_OK"] = "1"

os.environ.setdefault("MDPIPE_WORKERS", "1")  # As above. Tests of several processes set it.

settings.register_profile("mdpipe", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("mdpipe")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real engines first, then the other slow files: the fast ones fill in beside them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.get_closest_marker("pipeline") is None, item.path not in slow))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark as slow what needs the trained runs, which take longest of all that tests of stages share."""
    if "trained_place" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Callable[[Path], Any]], Path]:
    """Return a function that fills a folder which the processes of pytest-xdist share.

    The first that needs the folder makes it, and the others wait.
    """
    base = tmp_path_factory.getbasetemp()

    def share(name: str, make: Callable[[Path], Any]) -> Path:
        folder = (base if worker_id == "master" else base.parent) / name
        folder.mkdir(exist_ok=True)
        with (folder.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            complete = folder.parent / f"{name}.complete"
            if not complete.exists():
                make(folder)
                complete.touch()
        return folder

    return share


@pytest.fixture(autouse=True)
def determinism_stays_here() -> Iterator[None]:
    """Training and most stages switch it on for their process, which other tests share."""
    yield
    import torch  # Not before it can read the number of threads above.

    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)  # Hypothesis draws denormal numbers, and wants them as they are.
