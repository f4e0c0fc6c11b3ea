"""A stage that DVC or torchrun started ends when these are killed; one started by hand does not."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mdpipe.processes import POLL_SECONDS

pytestmark = pytest.mark.slow

STAGE = """
import time
from mdpipe.processes import exit_with_engine
exit_with_engine()
print("up", flush=True)
time.sleep(60)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STAGE!r}])"


def has_ended(process: psutil.Process) -> bool:
    """Return True also for a zombie, which an orphan stays where nobody collects them."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("mark", [{"DVC_STAGE": "train@x"}, {"TORCHELASTIC_RUN_ID": "mdpipe"}, {}], ids=str)
def test_a_stage_ends_with_its_parent_only_under_dvc_or_torchrun(mark):
    environment = {**os.environ, **mark}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    (stage,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + (20 if mark else 4 * POLL_SECONDS)
    while not (ended := has_ended(stage)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ended is bool(mark)
    if not mark:
        stage.kill()
