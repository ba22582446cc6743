"""`kprobes list` of every function of a kernel that can be probed: a process of its own each time."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import in_turns
from kprobes.engines.targets import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lab import Lab

KERNELS = ("6.12", "7.2")
FEWEST = 30_000
LIMIT_S = 0.5
ROUNDS = 5


def run(_lab: Lab) -> Iterator[Figure]:
    """Yield the time by kernel."""
    for kernel in KERNELS:
        Machine(kernel).look().facts()  # the first time with a kernel it is downloaded and booted
    times = in_turns(ROUNDS, {kernel: lambda kernel=kernel: _list(kernel) for kernel in KERNELS})
    for kernel in KERNELS:
        yield Figure(f"list all functions of {kernel}", times[kernel].least, most=LIMIT_S, absolute=True)


def _list(kernel: str) -> float:
    begin = time.perf_counter()
    words = [sys.executable, "-m", "kprobes.cli.main", "list", f"--vm={kernel}"]
    done = subprocess.run(words, capture_output=True, check=True)
    took = time.perf_counter() - begin
    assert done.stdout.count(b"\n") > FEWEST
    return took
