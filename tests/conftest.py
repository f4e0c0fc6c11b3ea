"""Shared settings of the tests."""

import os

from hypothesis import settings

# One thread a process: tests run side by side, and small tensors gain nothing from more.
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("mdpipe", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("mdpipe")
