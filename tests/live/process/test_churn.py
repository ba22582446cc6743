"""Attach and detach, over and over, of a function that four threads and a timer's signals are calling all the time.

Few rounds by default; `make soak` runs as many as a release deserves (KPROBES_CHURN_ROUNDS, KPROBES_KILLS).
"""

from __future__ import annotations

import mmap
import os
import random
import re
import signal
import struct
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from process_harness import attached, code_of, counts, is_dead, plan_for

from kprobes.engines.process.attached import ProcessAttached
from kprobes.engines.process.engine import detach_process
from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.target import Process
from kprobes.errors import KprobesError
from kprobes.model.plan import Plan

pytestmark = pytest.mark.process

ROUNDS = int(os.environ.get("KPROBES_CHURN_ROUNDS", "120"))
KILLS = int(os.environ.get("KPROBES_KILLS", "60"))
THREADS = 4
SEAT = struct.Struct("<3Q40x")
LEAST_MEMORY = 1 << 20


@dataclass
class Busy:
    """The running program and the memory it shares with us."""

    process: subprocess.Popen[bytes]
    program: Path
    view: mmap.mmap
    code: bytes = field(init=False)
    state: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.wait(lambda: all(calls for calls, *_ in self.seats()))
        self.code = code_of(self.process.pid, self.program)
        self.state = self.look()

    def seats(self) -> list[tuple[int, int, int]]:
        return [SEAT.unpack_from(self.view, 64 * (1 + index)) for index in range(THREADS)]

    def calls(self) -> int:
        return sum(calls + in_signals for calls, in_signals, _ in self.seats())

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.0005)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Keep all threads outside of the hot function."""
        self.view[:8] = struct.pack("<Q", 1)
        self.wait(lambda: all(parked for *_, parked in self.seats()))
        try:
            yield
        finally:
            self.view[:8] = struct.pack("<Q", 0)
            self.wait(lambda: not any(parked for *_, parked in self.seats()))

    def look(self) -> dict[str, int]:
        """Return how much of everything the process has."""
        here = Path(f"/proc/{self.process.pid}")
        sizes = dict(re.findall(r"(VmSize|RssAnon):\s+(\d+)", (here / "status").read_text()))
        return {
            "mappings": len(read_maps(self.process.pid)),
            "descriptors": len(list((here / "fd").iterdir())),
            "virtual": int(sizes["VmSize"]),
            "resident": int(sizes["RssAnon"]) * 1024,
        }

    def check_untouched(self) -> None:
        assert self.process.poll() is None
        assert code_of(self.process.pid, self.program) == self.code
        now = self.look()
        assert now.pop("resident") < self.state["resident"] + LEAST_MEMORY
        assert now.items() <= self.state.items()

    def finish(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=60)
        assert output == b"calls %d\n" % self.calls()
        assert self.process.returncode == 0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def busy(build: Callable[..., Path], directory: Path) -> Iterator[Busy]:
    program = build("busy.c", "-O2", "-fno-shrink-wrap")
    file = directory / "shared"
    file.write_bytes(bytes(4096))
    with (
        file.open("r+b") as opened,
        mmap.mmap(opened.fileno(), 4096) as view,
        subprocess.Popen(["nice", program, file], stdout=subprocess.PIPE) as process,
    ):
        try:
            yield Busy(process, program, view)
        finally:
            process.kill()


def check_exact(target: Busy, plan: Plan, found: ProcessAttached, pause_s: float) -> None:
    """See that between two instants without a call under way each call is a hit."""
    with target.shut():
        calls, hits = target.calls(), counts(plan, found)["hot"]
    time.sleep(pause_s)
    with target.shut():
        assert counts(plan, found)["hot"] - hits == target.calls() - calls


@pytest.mark.parametrize("way", ["jump", "breakpoint"])
def test_a_busy_function_is_probed_and_released_many_times(
    build: Callable[..., Path], tmp_path: Path, way: str
) -> None:
    ours = descriptors()
    with busy(build, tmp_path) as target:
        plan = plan_for(target.program, {"hot"}, ways=() if way == "jump" else (way,))
        for number in range(ROUNDS if way == "jump" else ROUNDS // 10):
            before = target.calls()
            with attached(Process(target.process.pid), plan) as (_, found):
                first = target.calls()
                assert found.armed[0].way == way
                if number % 10 == 0:
                    check_exact(target, plan, found, 0.002)
                last = target.calls()
                found.detach()
                after = target.calls()
                hits = counts(plan, found)["hot"]
            # Only a call that is under way on the boundary may be counted on either side, two for each thread.
            assert last - first - 2 * THREADS <= hits <= after - before + 2 * THREADS
            target.check_untouched()
        assert descriptors() == ours + 3  # the pipe, the view and its file
        target.finish()


ATTACHING, RUNNING, DETACHING, FAILED = b"ardf"
LONGEST_S = {ATTACHING: 0.05, RUNNING: 0.004, DETACHING: 0.01}  # how long a phase may last


def churn(pid: int, plan: Plan, phase: mmap.mmap, *, stay: bool) -> None:
    """In a child: attach and detach for ever; say what is being done."""
    while True:
        phase[0] = ATTACHING
        with attached(Process(pid), plan):
            phase[0] = RUNNING
            time.sleep(3600 if stay else LONGEST_S[RUNNING])
            phase[0] = DETACHING


def start_controller(pid: int, plan: Plan, phase: mmap.mmap, *, stay: bool) -> int:
    phase[0] = 0
    child = os.fork()
    if child == 0:
        try:
            churn(pid, plan, phase, stay=stay)
        except (KprobesError, OSError):
            traceback.print_exc()
        finally:
            phase[0] = FAILED
            os._exit(1)
    return child


def hands_of(child: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{child}/task/{child}/children").read_text().split()]


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def kill_controller(child: int) -> list[int]:
    """Kill it where it stands; return the hands that outlive it."""
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    hands = hands_of(child)
    kill(child)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return hands


@pytest.mark.parametrize("way", ["jump", "breakpoint"])
def test_controllers_are_killed_at_random_instants_and_the_program_lives_on(
    build: Callable[..., Path], tmp_path: Path, way: str
) -> None:
    chance = random.Random(3)
    killed: Counter[int] = Counter()
    with busy(build, tmp_path) as target, mmap.mmap(-1, 4096) as phase:
        plan = plan_for(target.program, {"hot"}, ways=() if way == "jump" else (way,))
        for number in count():
            if number >= (KILLS if way == "jump" else KILLS // 4) and len(killed) == len(LONGEST_S):
                break
            child = start_controller(target.process.pid, plan, phase, stay=False)
            wanted = (ATTACHING, RUNNING, DETACHING)[number % 3]
            target.wait(lambda wanted=wanted: phase[0] in (wanted, FAILED))
            time.sleep(chance.uniform(0, LONGEST_S[wanted]))
            assert phase[0] != FAILED
            hands = kill_controller(child)
            killed[phase[0]] += 1
            target.wait(lambda hands=hands: all(map(is_dead, hands)))
            target.check_untouched()
        target.finish()


def test_what_killed_controllers_and_hands_leave_is_cleaned_on_demand(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    with busy(build, tmp_path) as target, mmap.mmap(-1, 4096) as phase:
        plan = plan_for(target.program, {"hot"})
        pid = target.process.pid
        for _ in range(max(5, KILLS // 6)):
            child = start_controller(pid, plan, phase, stay=True)
            target.wait(lambda: phase[0] in (RUNNING, FAILED))
            hands = hands_of(child)
            kill(child, *hands)
            os.waitpid(child, 0)
            assert hands
            target.wait(lambda hands=hands: all(map(is_dead, hands)))
            assert code_of(pid, target.program) != target.code
            assert detach_process(pid) == 1
            assert detach_process(pid) == 0
            target.check_untouched()
        target.finish()
