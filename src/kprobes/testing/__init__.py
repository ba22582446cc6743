"""Handlers as plain Python: `run` executes a handler in CPython on frames that a test builds or that were recorded.

    from kprobes.testing import Frame, run, struct

    hit = Frame({"file": struct(f_pos=10), "count": 4096}, result=100, comm="postgres", now=(1_000, 5_000))
    done = run(read_latency, hit)
    assert done.events[0].size == 100
    assert done[usecs] == {"postgres": ...}

The lines that run are the handler's own, with their file and numbers: a debugger stops in them, coverage counts them.
What differs from a compiled handler stands in docs/language.md, "In plain Python".
"""

from __future__ import annotations

from kprobes.testing.frame import Frame
from kprobes.testing.load import load
from kprobes.testing.numbers import i64, u64
from kprobes.testing.run import Result, run
from kprobes.testing.values import struct

__all__ = ["Frame", "Result", "i64", "load", "run", "struct", "u64"]
