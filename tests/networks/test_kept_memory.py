"""Memory of tensors: a step's are handed to the next one, where the C library can do that."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from mdpipe.networks.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**24) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(pages() for _ in range(8)))
"""
"""Fewest pages that the system hands out for 192 MiB of tensors, which had as much memory before.

Fewest, since what else is allocated meanwhile may come to lie in the memory that they left."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_the_system_is_asked_for_pages_once():
    asked = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    }
    assert asked["kept"] < 1000 < asked["given back"]
