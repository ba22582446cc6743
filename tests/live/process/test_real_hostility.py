"""A target that scribbles over the memory that it shares with us: the controller goes on, in bounds, and lets go."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_harness import attached, code_of, plan_for

from kprobes import Count, Histogram, arg, attach, comm, emit, uprobe
from kprobes.engines.process.engine import detach_process
from kprobes.engines.process.ring import split
from kprobes.engines.process.target import Process
from kprobes.errors import KprobesError

pytestmark = pytest.mark.process

ALIVE_S = 0.5
MODES = ("random", "ones", "records")

total, calls, sizes = Count("total"), Count("calls", by=int), Histogram("sizes")


@uprobe("work")
def on_work():
    total.add()
    calls.add(by=arg(2) % 100)
    sizes.add(arg(2))
    emit(size=arg(2), who=comm(), text=arg(2) % 7)


def start(program: Path, *words: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process


def let_scribble(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"mappings 1\n"


@pytest.mark.parametrize("calling", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_read_of_a_scribbling_target_is_nonsense_but_bounded(
    build: Callable[..., Path], mode: str, calling: bool
) -> None:
    with start(build("hostile.c"), mode, str(ALIVE_S), *["calling"] * calling) as process:
        with attach(on_work, to=Process(process.pid)) as session:
            let_scribble(process)
            rounds = 0
            room = next(one.max_entries for one in session.plan.maps if one.name == "calls")
            while process.poll() is None or rounds < 3:
                found = session.poll(0.002)
                assert all(str(event) for event in found)
                for name in ("calls", "sizes", "total"):
                    assert session.read(name) is not None
                assert len(session.read("calls")) <= room
                assert len(session.stats) == 1
                rounds += 1
            session.detach()
            assert session.stats
        # The target that calls with a block of nonsense may die of it, by a signal of its own.
        assert process.returncode == 0 or (calling and process.returncode < 0)


@pytest.mark.parametrize("mode", MODES)
def test_raw_records_of_a_scribbling_target_stay_within_their_ring(build: Callable[..., Path], mode: str) -> None:
    with start(build("hostile.c"), mode, str(ALIVE_S)) as process:
        with attach(on_work, to=Process(process.pid)) as session:
            found = session._attached
            let_scribble(process)
            size = max(size for _, size in found._layout.ring_places)
            assert size
            while process.poll() is None:
                for raw in found.poll_raw(0.001):
                    assert len(raw) <= size
                    assert sum(map(len, split(raw))) <= len(raw)
        assert process.returncode == 0


@pytest.mark.parametrize("mode", MODES)
def test_probes_of_a_killed_controller_are_taken_from_a_scribbling_target_or_it_is_said_why_not(
    build: Callable[..., Path], mode: str
) -> None:
    program = build("hostile.c")
    plan = plan_for(program, {"work"})
    with start(program, mode, "20") as process:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException), attached(Process(process.pid), plan):
                let_scribble(process)
                hands = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
                for pid in (*map(int, hands), os.getpid()):
                    os.kill(pid, signal.SIGKILL)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        time.sleep(0.1)
        assert process.poll() is None
        before = code_of(process.pid, program)
        with contextlib.suppress(KprobesError):
            assert detach_process(process.pid) in (0, 1)
        with contextlib.suppress(KprobesError), attached(Process(process.pid), plan):
            pass
        time.sleep(0.1)
        assert process.poll() is None
        assert len(code_of(process.pid, program)) == len(before)
        process.kill()
