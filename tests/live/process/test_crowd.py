"""Attaching to programs whose threads and mappings come and go meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_harness import attached, code_of, counts, plan_for, started

from kprobes.engines.process.target import Process

pytestmark = pytest.mark.process

ROUNDS = 8


@pytest.mark.parametrize("ways", [(), ("breakpoint",)])
def test_threads_and_mappings_that_come_and_go_are_in_nobodys_way(
    build: Callable[..., Path], ways: tuple[str, ...]
) -> None:
    library, program = build("inside.c", "-shared", "-fPIC"), build("crowd.c")
    plan = plan_for(library, {"inside"}, ways=ways)
    with started(program, str(library)) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        code = code_of(process.pid, library)
        for _ in range(ROUNDS):
            begun = time.monotonic()
            with attached(Process(process.pid), plan) as (_, found):
                while not counts(plan, found)["inside"]:
                    assert time.monotonic() < begun + 120
                    time.sleep(0.001)
            assert code_of(process.pid, library) == code
        output, _ = process.communicate(b"\n", timeout=60)
        assert (output, process.returncode) == (b"whole 1\n", 0)
