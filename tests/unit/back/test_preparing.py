"""LLVM is loaded in a thread, as often as somebody is about to compile."""

from __future__ import annotations

import subprocess
import sys

TWICE = """
from kprobes.compiler.back.llvm import prepare
for native in (True, True, False, False):
    prepare(native=native)
"""


def test_a_program_that_prepares_again_and_again_ends():
    assert subprocess.run([sys.executable, "-c", TWICE], timeout=60, check=False).returncode == 0
