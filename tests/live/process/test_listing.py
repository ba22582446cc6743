"""The list of what is armed: read from outside, kept up to date, and safe against a target that scribbles over it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from process_harness import attached, plan_for, started

from kprobes import Process, attach, uprobe
from kprobes.engines.process.listing import list_process, list_processes
from kprobes.engines.process.memory import ProcessMemory
from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.registry import MAPPED_AS, REGISTRY_SIZE, parse_registry
from kprobes.errors import TargetError, UsageError
from kprobes.model.listed import Listed, State

pytestmark = pytest.mark.process


@contextmanager
def threads(build: Callable[..., Path]) -> Iterator[subprocess.Popen[bytes]]:
    with started(build("threads.c"), "2", "1000", "wait") as process:
        assert process.stdout
        process.stdout.readline()
        yield process


def only(pid: int) -> tuple[Listed, ...]:
    (found,) = list_process(pid)
    return found.sites


def kprobes(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kprobes.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_anyone_sees_what_is_armed_how_and_why(build: Callable[..., Path]) -> None:
    program = build("threads.c")
    with threads(build) as process:
        with attached(Process(process.pid), plan_for(program, {"work"})) as (_, found):
            assert only(process.pid) == tuple(found.listing())
            (row,) = only(process.pid)
            assert (row.address, row.way) == (found.armed[0].address, "jump")
            assert (row.kind, row.name, row.object) == ("k", "work+0x0", program.name)
            assert (row.why, row.flags) == (found.armed[0].why, ("OPTIMIZED",))
            shown = kprobes("list", "-p", str(process.pid))
            expected = f"{row.address:016x}  k  work+0x0 [{program.name}] [OPTIMIZED]  jump: {row.why}\n"
            assert (shown.stdout, shown.returncode) == (expected, 0)
            told = json.loads(kprobes("list", "-p", str(process.pid), "--format", "json").stdout)
            assert (told["pid"], told["name"], told["flags"]) == (process.pid, "work+0x0", ["OPTIMIZED"])
            mine = (os.getpid(), process.pid)
            assert [one.pid for one in list_processes(mine)] == [process.pid]
        assert list_process(process.pid) == []
        assert list(list_processes(mine)) == []


def test_breakpoint_is_told_with_its_reason_while_its_threads_are_traced(build: Callable[..., Path]) -> None:
    plan = plan_for(build("threads.c"), {"work"}, ways=("breakpoint",))
    with threads(build) as process, attached(Process(process.pid), plan):
        (row,) = only(process.pid)
        assert (row.way, row.flags) == ("breakpoint", ())
        assert row.why


def test_disabled_sites_are_marked_and_stop_counting(build: Callable[..., Path]) -> None:
    program = build("threads.c")

    @uprobe(f"{program}:work")
    def at_work() -> None:
        pass

    with threads(build) as process, attach(at_work, to=Process(process.pid)) as session:
        session.disable(at_work)
        assert [row.state for row in session.listing] == [State.DISABLED]
        (row,) = only(process.pid)
        assert row.flags == ("DISABLED",)
        session.enable("work")
        assert [row.flags for row in only(process.pid)] == [("OPTIMIZED",)]
        session.disable("*:work")
        with pytest.raises(UsageError, match="called nothing"):
            session.disable("nothing")
        output, _ = process.communicate(b"\n", timeout=60)
        assert process.returncode == 0, output
        assert session.stats[0].hits == 0


def test_pending_and_gone_objects_are_marked(build: Callable[..., Path]) -> None:
    library, program = build("inside.c", "-shared", "-fPIC"), build("toggle.c")
    real = plan_for(library, {"inside"})
    plan = replace(real, probes=tuple(replace(probe, is_pending=True) for probe in real.probes))
    with started(program, str(library)) as process, attached(Process(process.pid), plan) as (_, found):
        assert process.stdin
        assert [(row.state, row.address) for row in found.listing()] == [(State.PENDING, 0)]
        for state in (State.ARMED, State.GONE, State.ARMED):
            process.stdin.write(b"\n")
            process.stdin.flush()
            end = time.monotonic() + 60
            while found.listing()[0].state != state and time.monotonic() < end:
                time.sleep(0.005)
            (row,) = found.listing()
            assert row.state == state
            assert row.flags == (("OPTIMIZED",) if state == State.ARMED else ("GONE",))
        while only(process.pid) != (row,) and time.monotonic() < end:  # it is written after the answer
            time.sleep(0.005)
        assert only(process.pid) == (row,)
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    "junk", [b"\xff" * 64, b"\0" * 64, b"\x01\0\0\0\xff\xff\xff\xff" * 8], ids=["ones", "zeros", "sizes"]
)
def test_an_overwritten_list_is_refused(build: Callable[..., Path], junk: bytes) -> None:
    with threads(build) as process, attached(Process(process.pid), plan_for(build("threads.c"), {"work"})):
        only(process.pid)  # it is written by now
        base = next(one.start for one in read_maps(process.pid) if one.path == MAPPED_AS and not one.offset)
        with ProcessMemory(process.pid) as memory:
            at = parse_registry(memory.read(base, REGISTRY_SIZE)).listing_at
            memory.write(base + at, junk)
        with pytest.raises(TargetError, match="list of probes"):
            list_process(process.pid)


def test_a_process_that_is_not_there_is_told(build: Callable[..., Path]) -> None:
    with threads(build) as process:
        pid = process.pid
    shown = kprobes("list", "-p", str(pid))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert f"there is no process {pid}" in shown.stderr


def test_info_says_how_a_place_would_be_armed_without_touching_it(build: Callable[..., Path]) -> None:
    with threads(build) as process:
        before = read_maps(process.pid)
        told = json.loads(kprobes("info", "-p", str(process.pid), "libc:free", "--format", "json").stdout)
        assert told["function"] == "libc.so.6:free"
        assert told["by a probe"].startswith("jump")
        assert "exit" in told["by its return"]
        inside = kprobes("info", "-p", str(process.pid), "libc:free+0x1").stdout
        assert "no: not the start of an instruction" in inside
        assert read_maps(process.pid) == before


def test_info_tells_of_the_process_that_a_command_becomes_and_never_runs_it(build: Callable[..., Path]) -> None:
    done = kprobes("info", "r:libc:free", "--format", "json", "--", "sh", "-c", "echo it ran")
    told = json.loads(done.stdout)
    assert told["by a probe"].startswith("jump")
    assert "exit" in told["by its return"]
    assert "it ran" not in done.stdout + done.stderr


def test_the_place_of_a_definition_is_explained() -> None:
    by_place = kprobes("explain", "--format", "json", "/bin/sh:0x0", "--", "/bin/sh")
    by_text = kprobes("explain", "--format", "json", "p:mine /bin/sh:0x0 %di", "--", "/bin/sh")
    assert by_text.stderr == by_place.stderr
    assert "holds no code" in by_text.stderr
