"""Threads that sleep in system calls don't notice that their process was stopped."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_harness import attached, functions_of, plan_for

from kprobes.engines.process.target import Process

pytestmark = pytest.mark.process


@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_no_sleeping_call_is_interrupted_or_cut_short(build: Callable[..., Path], ways: tuple[str, ...]) -> None:
    program = build("sleepers.c")
    plan = plan_for(program, {name for name, _, _ in functions_of(program) if name.startswith("in_")}, ways=ways)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"asleep\n"
        time.sleep(0.05)
        for _ in range(8):
            with attached(Process(process.pid), plan):
                time.sleep(0.005)
        output, _ = process.communicate(b"\n", timeout=60)
        assert (output, process.returncode) == (b"interrupted 0\n", 0)
