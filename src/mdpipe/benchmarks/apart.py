"""Measurements in processes of their own, one after the other, so that none inherits another's memory or threads."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from mdpipe.benchmarks.configuration import Configuration
from mdpipe.benchmarks.data_configuration import DataConfiguration
from mdpipe.benchmarks.train_configuration import TrainConfiguration


def measured_apart(configuration: Configuration | TrainConfiguration | DataConfiguration) -> dict[str, Any]:
    """The configuration and what was measured of it by its program, in one.

    Raises:
        ValueError: the process failed, or was killed, as it is for want of memory.
    """
    described = asdict(configuration)
    command = [sys.executable, "-m", configuration.program]
    done = subprocess.run(command, input=json.dumps(described), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or "the process was killed; perhaps memory ran out"
        raise ValueError(f"{configuration.title} was not measured: {reason}")
    return {**described, **json.loads(done.stdout)}
