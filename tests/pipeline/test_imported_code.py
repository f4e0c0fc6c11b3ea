"""A training belongs to the code that was imported, also if a file is saved before the code is hashed."""

import subprocess
import sys

import pytest

from tests.pipeline.conftest import RUN, WorkingCopy

pytestmark = pytest.mark.pipeline

MODULE = "mdpipe.training.muon"
SAVE_AFTER_IMPORT = """
import importlib.abc, importlib.util, sys
from pathlib import Path

class SaveAfterImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_save(module):
            load(module)
            with Path(module.__file__).open("a") as file:
                file.write("# saved\\n")

        spec.loader.exec_module = load_and_save
        return spec

sys.meta_path.insert(0, SaveAfterImport())
from mdpipe.cli import app
app()
"""


def train(copy: WorkingCopy, program: str) -> "subprocess.CompletedProcess[str]":
    """Train as DVC does, in a program that calls the command line."""
    environment = {**copy.environment, "DVC_STAGE": f"train@{RUN}"}
    command = [sys.executable, "-c", program, "train", RUN]
    return subprocess.run(command, cwd=copy.root, env=environment, capture_output=True, text=True, check=False)


def test_code_saved_after_its_import_is_not_trained_with(untrained: WorkingCopy) -> None:
    """Else the checkpoints of the former code would be resumed, and locked, as those of the present one."""
    checkpoints = untrained.root / ".mdpipe/checkpoints"
    done = train(untrained, f"MODULE = {MODULE!r}\n{SAVE_AFTER_IMPORT}")
    assert done.returncode != 0
    assert f"train@{RUN} is stale: src/{MODULE.replace('.', '/')}.py changed while it ran" in done.stderr
    assert list(checkpoints.glob(f"{RUN}-*")) == []
    done = train(untrained, "from mdpipe.cli import app\napp()")
    assert done.returncode == 0, done.stderr
    assert (untrained.root / "models" / RUN).exists()
