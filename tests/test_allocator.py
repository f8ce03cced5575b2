"""Freed memory that is kept costs no page faults when it is asked for again."""

import platform
import resource
import subprocess
import sys

import pytest

from csrecon.runtime.allocator import keep_freed_memory

PROGRAM = """
import resource
import torch
from csrecon.runtime.allocator import keep_freed_memory

assert keep_freed_memory()
def layers():
    features = [torch.ones(2**21) for _ in range(4)]
for _ in range(3):
    layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_blocks_come_back_without_page_faults():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    once = 4 * 2**21 * 4 // resource.getpagesize()
    assert int(run.stdout) <= 2 * once  # of the 200 times


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
