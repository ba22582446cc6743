"""`kprobes check` of 100,000 definitions: a file of them, verdicts as JSON, a process of its own each time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import in_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lab import Lab

LINES = 100_000
LIMIT_S = 5.0
ROUNDS = 3
KERNELS = ("6.1", "7.2")
FUNCTIONS = ("vfs_read", "do_sys_openat2", "tcp_v4_connect", "ext4_file_read_iter", "do_exit")
ARGUMENTS = (
    "dfd=%di filename=+0(%si):string",
    "a=%di b=%si c=%dx:u32",
    "$stack0 $stack1",
    "next=+8(+0(%di)):x64 now=@jiffies:u64",
    "names=+0(+0(%si)):string[2] bits=%ax:b3@4/32",
)


def run(_lab: Lab) -> Iterator[Figure]:
    """Yield the time by kernel."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "definitions")
        path.write_text("".join(f"{_line(number)}\n" for number in range(LINES)))
        times = in_turns(ROUNDS, {kernel: lambda kernel=kernel: _check(path, kernel) for kernel in KERNELS})
    for kernel in KERNELS:
        yield Figure(f"check {LINES:,} definitions as {kernel}", times[kernel].least, most=LIMIT_S, absolute=True)


def _line(number: int) -> str:
    """Return one of ten: six probes, two return probes, one that is refused, one deletion."""
    function, arguments = FUNCTIONS[number // 10 % len(FUNCTIONS)], ARGUMENTS[number // 7 % len(ARGUMENTS)]
    if number % 10 < 6:
        return f"p:event{number} {function} {arguments}"
    if number % 10 < 8:
        return f"r:return{number} {function} value=$retval"
    return f"p:bad{number} {function} a=%no{number}" if number % 10 == 8 else f"-:event{number - 5}"


def _check(path: Path, kernel: str) -> float:
    begin = time.perf_counter()
    words = [sys.executable, "-m", "kprobes.cli.main", "check", "--kernel", kernel, "--json", str(path)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    took = time.perf_counter() - begin
    assert (done.returncode, done.stdout.count(b"\n")) == (1, LINES)
    return took
