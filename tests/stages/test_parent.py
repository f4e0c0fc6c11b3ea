"""A stage that DVC or torchrun started ends when these are killed; one started by hand does not."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.slow

STAGE = """
import time
from mdpipe.processes import exit_with_engine
exit_with_engine()
print("up", flush=True)
time.sleep(60)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STAGE!r}])"


@pytest.mark.parametrize("mark", [{"DVC_STAGE": "train@x"}, {"TORCHELASTIC_RUN_ID": "mdpipe"}, {}], ids=str)
def test_a_stage_ends_with_its_parent_only_under_dvc_or_torchrun(mark):
    environment = {**os.environ, **mark}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    (stage,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(2)
    # Where nobody collects orphans, an ended one stays as a zombie.
    ended = not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE
    assert ended is bool(mark)
    if not mark:
        stage.kill()
