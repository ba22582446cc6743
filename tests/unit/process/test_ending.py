"""A process that ends while it is being probed: its memory goes first, then it counts as ended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kprobes.engines.process.procfs import has_memory, read_start_time
from kprobes.engines.process.registry import Identity
from kprobes.engines.process.service import _ending
from kprobes.errors import TargetError, UnprobeableError


def test_a_process_has_memory_until_it_ends() -> None:
    assert has_memory(os.getpid())
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not has_memory(child.pid)
    assert not has_memory(child.pid)


def thread_of_the_kernel() -> int:
    """Return a process that lives without memory, as one does that is about to end."""
    return next(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_bare(pid))  # noqa: PTH208


def is_bare(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/maps").read_bytes() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at processes of the kernel")
def test_what_fails_where_there_is_no_memory_any_more_fails_because_the_process_ends() -> None:
    bare, us = (Identity(pid, read_start_time(pid)) for pid in (thread_of_the_kernel(), os.getpid()))
    with pytest.raises(TargetError, match=f"process {bare.pid} ended"), _ending(bare):
        raise UnprobeableError("work", "its file is not mapped")
    with pytest.raises(UnprobeableError), _ending(us):
        raise UnprobeableError("work", "its file is not mapped")
