"""What one hit costs inside of a process: added nanoseconds a call, beside other tracers on the same program.

`programs/hot.c` calls a function with an ordinary prologue; what is shown is the processor time of a call with the
probe in place less that of a call without, the least of several rounds in which ours and the references take turns.
gdb's time is spent in gdb, so there it is the clock's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import PROGRAMS, Lab, has, in_turns
from bench.process_hit import counted, events_a_second, inside, timed, timed_by_cycles
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.engines.process.target import Process
from kprobes.model.within import Within
from kprobes.session import attach, attach_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kprobes.model.probe import Probe

ROUNDS, TRIES = 3, 3
NS = 1e-9
# Calls a measurement, so that each takes some hundredths of a second.
QUICK, TRAPPED, SCRIPTED, DEBUGGED = 3_000_000, 20_000, 100_000, 300


class Caller:
    """The running program; a context manager."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()

    def call(self, threads: int, calls: int) -> float:
        """Return the nanoseconds of processor time of one call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{threads} {calls}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the program that is probed has died")
        return float(line)


@dataclass(frozen=True, slots=True)
class Way:
    """A tracer: *attach* puts it on the program; *calls* as many as it can take in a moment."""

    attach: Callable[[Caller], AbstractContextManager[object]]
    calls: int = QUICK
    threads: int = 1
    wall: bool = False


def by_us(probe: Probe) -> Callable[[Caller], AbstractContextManager[object]]:
    """Return how *probe* is attached by the process engine."""
    return lambda caller: attach(probe, to=Process(caller.pid))


def by_kernel(probe: Probe) -> Callable[[Caller], AbstractContextManager[object]]:
    """Return how *probe* is attached by the kernel's uprobes."""
    return lambda caller: attach_to(KernelEngine(), probe, within=Within(caller.pid))


def by_frida(way: str) -> Callable[[Caller], AbstractContextManager[object]]:
    """Return how Frida is attached."""

    @contextmanager
    def attached(caller: Caller) -> Iterator[None]:
        words = [sys.executable, str(PROGRAMS / "frida_probe.py"), str(caller.pid), way]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            wait_for(process, "attached")
            yield
            assert process.stdin is not None
            process.stdin.close()
            wait_for(process, "detached")

    return attached


@contextmanager
def by_gdb(caller: Caller) -> Iterator[None]:
    """Attach gdb with a breakpoint that it counts and passes."""
    steps = ["set pagination off", "set confirm off", "break work", "ignore 1 100000000", "continue"]
    words = ["gdb", "-nx", "-q", "-p", str(caller.pid), *(word for step in steps for word in ("-ex", step))]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        wait_for(process, "Continuing.")
        yield
        process.terminate()


def wait_for(process: subprocess.Popen[str], sign: str) -> None:
    """Read what *process* says until a line begins with *sign*."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(sign):
            return
    raise RuntimeError(f"{process.args!r} ended")


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the figures."""
    program = lab.build("hot", "-fno-omit-frame-pointer", "-pthread")
    times = in_turns(ROUNDS, {name: _measure(program, way) for name, way in _ways(program).items()})
    if has("uftrace"):
        times |= in_turns(ROUNDS, {"uftrace": lambda: _by_uftrace(lab, program)})

    def least(name: str) -> float | None:
        return times[name].least if name in times else None

    count, goal = "hit in a process: count at entry", 3 * NS
    yield Figure(count, least("count"), least("uprobe"), against="kernel uprobe", most=goal, absolute=True)
    yield Figure("  the same", least("count"), least("frida replace"), against="Frida, replaced in C")
    yield Figure("  the same", least("count"), least("frida cmodule"), against="Frida, callback in C")
    yield Figure("  the same", least("count"), least("frida js"), against="Frida, JavaScript")
    yield Figure("  the same", least("count"), least("uftrace"), against="uftrace")
    yield Figure("  the same", least("count"), least("gdb"), against="gdb")
    two = "  the same, two threads at once, each"
    yield Figure(two, least("count 2"), least("uprobe 2"), against="kernel uprobe", most=4 * NS, absolute=True)
    middle = "hit in a process: count in mid-function"
    yield Figure(middle, least("inside"), least("uprobe inside"), against="kernel uprobe", most=10 * NS, absolute=True)
    cycles = "hit in a process: entry + return, histogram in cycles"
    yield Figure(cycles, least("cycles"), most=30 * NS, absolute=True)
    pair = "hit in a process: entry + return, histogram in ns"
    yield Figure(pair, least("pair"), least("uprobe pair"), against="kernel uprobes", most=70 * NS, absolute=True)
    yield Figure("  the same", least("pair"), least("frida both"), against="Frida, callbacks in C")
    program = program_for_events(lab)
    rate, events, lost = min((events_a_second(program) for _ in range(ROUNDS)), key=lambda one: one[2])
    yield Figure("events of 40 bytes reaching a table a second", rate, unit="", least=1e7, absolute=True)
    yield Figure("  so many of them", events, unit="")
    yield Figure(f"  of them lost, least of {ROUNDS} rounds", lost, unit="", most=0, absolute=True)


def program_for_events(lab: Lab) -> Path:
    """Return the program that sends events."""
    from bench.process_hit import build

    return build(lab.directory)


def _ways(program: Path) -> dict[str, Way]:
    ways = {
        "count": Way(by_us(counted)),
        "count 2": Way(by_us(counted), threads=2),
        "inside": Way(by_us(inside(program))),
        "pair": Way(by_us(timed)),
        "cycles": Way(by_us(timed_by_cycles)),
    }
    if not os.geteuid():
        ways["uprobe"] = Way(by_kernel(counted), TRAPPED)
        ways["uprobe 2"] = Way(by_kernel(counted), TRAPPED, threads=2)
        ways["uprobe inside"] = Way(by_kernel(inside(program)), TRAPPED)
        ways["uprobe pair"] = Way(by_kernel(timed), TRAPPED)
    if find_spec("frida"):
        ways["frida replace"] = Way(by_frida("replace"))
        for name in ("cmodule", "both", "js"):
            ways[f"frida {name}"] = Way(by_frida(name), SCRIPTED)
    if has("gdb"):
        ways["gdb"] = Way(by_gdb, DEBUGGED, wall=True)
    return ways


def _measure(program: Path, way: Way) -> Callable[[], float]:
    def added() -> float:
        with ExitStack() as stack:
            caller = stack.enter_context(Caller([str(program)]))
            bare = _least(caller, way.threads, QUICK)
            stack.enter_context(way.attach(caller))
            caller.call(way.threads, way.calls // 10)
            if way.wall:
                begin = time.perf_counter()
                caller.call(way.threads, way.calls)
                return (time.perf_counter() - begin) / way.calls
            return (_least(caller, way.threads, way.calls) - bare) * NS

    return added


def _least(caller: Caller, threads: int, calls: int) -> float:
    return min(caller.call(threads, calls) for _ in range(TRIES))


def _by_uftrace(lab: Lab, program: Path) -> float:
    """Return what a call takes more in a program made for uftrace (-pg), traced, than in the plain one."""
    made = lab.directory / "hot-pg"
    if not made.exists():
        words = ["gcc", "-O2", "-pg", "-pthread", "-o", str(made), str(PROGRAMS / "hot.c")]
        subprocess.run(words, check=True, capture_output=True)
    with Caller([str(program)]) as plain:
        bare = _least(plain, 1, QUICK)
    words = ["uftrace", "record", "--no-libcall", "-d", str(lab.directory / "uftrace"), str(made)]
    with Caller(words) as caller:
        return (_least(caller, 1, SCRIPTED) - bare) * NS
