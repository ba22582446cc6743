"""Events of 40 bytes reaching Python without a loss, beside BCC's Python.

In a guest: a program makes a system call as fast as it can, a kprobe there emits an event, and what counts is the time
from the program's start to the last event. Each is read as its users read: BCC by a callback in the guest, ours as
events or Arrow tables on this side of the channel. On this machine, where both run on the same processor: a uprobe
fills the ring buffer, and what counts is the time to empty it. In both, every record has to arrive.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.bcc import IN_GUEST, PACKAGES, SCRIPT, bring_bcc, has_bcc, write_headers
from bench.figures import Figure
from bench.guests import Guest
from bench.lab import Lab, Times, in_turns
from kprobes import emit, kprobe, now, pid, regs, tid, uprobe
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.planner.cache import cached_plan
from kprobes.session import Session, attach_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kprobes.engines.vm.machine import Machine

    Read = Callable[[Session], tuple[int, int]]

KERNEL = "6.12"
CALL, FUNCTION = 102, "__do_sys_getuid"
RING = 8 << 20
MANY, FEW = 100_000, 20_000  # the many fit into that, the few into the ring of 1 MB that a session has
ROUNDS = 3
QUIET_S, LIMIT_S = 2, 60


@kprobe(FUNCTION, way="kprobe")
def in_kernel() -> None:
    """Emit 40 bytes with their header."""
    emit(time=now(), pid=pid(), tid=tid(), ip=regs.ip, number=1)


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the rates in a guest, then those of reading alone on this machine."""
    if not has_bcc():
        lab.say("no BCC (python3-bpfcc): nothing to compare the reading of events with")
        return
    reads: dict[str, Read] = {"events": _as_events}
    if find_spec("pyarrow"):
        import_module("pyarrow.compute")  # takes longer than all events together
        reads["tables"] = _as_tables
    yield from _figures(f"events to Python, {KERNEL}", _in_guest(lab, reads), MANY)
    if os.geteuid() == 0:
        yield from _figures("events to Python, here, reading alone", _here(lab, reads), FEW)


def _in_guest(lab: Lab, reads: Mapping[str, Read]) -> dict[str, Times]:
    """Return the seconds from the start of a program that makes MANY hits to the last event."""
    command = ["/root/calls", "1", str(MANY), str(CALL)]
    with Guest(KERNEL) as guest:
        bring_bcc(lab, guest)
        guest.run(["true"], copy=[str(lab.build("calls", "-static"))])

        def theirs() -> float:
            words = ["python3", f"/root/{SCRIPT.name}", "kprobe", FUNCTION, "together", str(MANY), *command]
            return _told(guest.run(words, environment=IN_GUEST), MANY)

        def ours(read: Read) -> float:
            session = _with_room(guest.machine)
            try:
                begin = time.perf_counter()
                program = guest.machine.run(command)
                last = _follow(session, read, MANY)
                program.wait(LIMIT_S)
                return last - begin
            finally:
                session.detach()

        return in_turns(ROUNDS, {"BCC": theirs, **{name: _bound(ours, read) for name, read in reads.items()}})


def _here(lab: Lab, reads: Mapping[str, Read]) -> dict[str, Times]:
    """Return the seconds in which FEW events that lie in the ring are read."""
    program = lab.build("hot")
    command = ["sh", "-c", f"echo 1 {FEW} | {program}"]
    environment = {**lab.environment, "PYTHONPATH": str(PACKAGES), "BCC_KERNEL_SOURCE": str(write_headers(lab))}

    @uprobe(f"{program}:work")
    def in_program():
        emit(time=now(), pid=pid(), tid=tid(), ip=regs.ip, number=1)

    def theirs() -> float:
        words = ["/usr/bin/python3", str(SCRIPT), "uprobe", f"{program}:work", "after", str(FEW), *command]
        told = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        return _told(told.stdout, FEW)

    def ours(read: Read) -> float:
        with attach_to(KernelEngine(), in_program) as session:
            subprocess.run(command, check=True, capture_output=True)
            begin = time.perf_counter()
            return _follow(session, read, FEW) - begin

    return in_turns(ROUNDS, {"BCC": theirs, **{name: _bound(ours, read) for name, read in reads.items()}})


def _with_room(machine: Machine) -> Session:
    """Attach with a ring of the size that BCC's has in the script."""
    plan = cached_plan([in_kernel], machine.facts())
    maps = [replace(one, max_entries=RING) if one.kind == "ring" else one for one in plan.maps]
    plan = replace(plan, maps=tuple(maps))
    return Session(machine, plan, machine.attach(plan))


def _bound(way: Callable[[Read], float], read: Read) -> Callable[[], float]:
    return lambda: way(read)


def _as_events(session: Session) -> tuple[int, int]:
    """Return how many events are there, and the sum of their numbers."""
    batch = session.poll()
    return len(batch), sum(event.number for event in batch)


def _as_tables(session: Session) -> tuple[int, int]:
    """Return the same, taken as Arrow tables."""
    tables = session.tables()
    return sum(table.num_rows for table in tables), sum(
        import_module("pyarrow.compute").sum(table["number"]).as_py() for table in tables
    )


def _follow(session: Session, read: Read, count: int) -> float:
    """Read *count* events; return when the last one was there.

    Raises:
        RuntimeError: some did not come.
    """
    got = total = 0
    last = time.perf_counter()
    while got < count and time.perf_counter() - last < QUIET_S:
        some, more = read(session)
        if some:
            got, total, last = got + some, total + more, time.perf_counter()
    lost = sum(one.lost for one in session.stats)
    if got < count or lost or total != got:
        raise RuntimeError(f"{got} of {count} events came, {lost} were lost")
    return last


def _told(text: str, count: int) -> float:
    """Return the seconds that the script tells.

    Raises:
        RuntimeError: some events did not come.
    """
    got, total, lost, seconds = text.split()[-4:]
    if int(got) < count or int(lost) or total != got:
        raise RuntimeError(f"{got} of {count} events came to BCC, {lost} were lost")
    return float(seconds)


def _figures(name: str, times: Mapping[str, Times], count: int) -> Iterator[Figure]:
    rates = {one: count / found.least for one, found in times.items()}
    for one in ("events", "tables"):
        if one in rates:
            yield Figure(f"{name}: as {one}", rates[one], rates.get("BCC"), "/s", "BCC", least=1.0)
