# mypy: disable-error-code="var-annotated"
# (the words of a handler have no values in Python)
"""`kprobes explain` in a process: what arming a place does, and with --step one hit in earnest."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from kprobes.cli.options import process_of
from kprobes.decorators import uprobe
from kprobes.errors import TargetError, UsageError
from kprobes.model.words import emit, regs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import TextIO

    from kprobes.cli.native_workload import NativeWorkload
    from kprobes.cli.parser import Namespace
    from kprobes.engines.process.engine import ProcessEngine
    from kprobes.model.explained import Explained
    from kprobes.model.plan import Plan
    from kprobes.session import Session

_REGISTERS = ("ip", "flags", "ax", "bx", "cx", "dx", "si", "di", "bp", "sp", *(f"r{n}" for n in range(8, 16)))
WAIT_S = 10.0


def explain_in_process(arguments: Namespace, stream: TextIO, show: Callable[[Explained], None]) -> int:
    """Explain the place of *arguments* in a process, and carry the probe out, told to *stream*, where --step asks for
    it."""
    from kprobes.engines.process.engine import ProcessEngine
    from kprobes.engines.process.explaining import explain_process

    engine = process_of(arguments).open()
    assert isinstance(engine, ProcessEngine)
    try:
        show(explain_process(engine.pid, _plan(arguments.place, engine.pid)))
        return _step(engine, arguments, stream) if arguments.step else 0
    finally:
        engine.close()


def _plan(place: str, pid: int) -> Plan:
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.planner.process import plan_process

    plan = plan_process((Probe("uprobe", (place,)),), Within(pid, native=True))
    if len(plan.sites) != 1:
        raise UsageError(f"{place!r} means {len(plan.sites)} places", hint="name one, as object:function")
    return plan


def _both() -> Generator[None, int, None]:
    ip, flags, ax, bx, cx, dx = regs.ip, regs.flags, regs.ax, regs.bx, regs.cx, regs.dx
    si, di, bp, sp = regs.si, regs.di, regs.bp, regs.sp
    r8, r9, r10, r11, r12, r13, r14, r15 = regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15
    yield
    emit(ip=ip, flags=flags, ax=ax, bx=bx, cx=cx, dx=dx, si=si, di=di, bp=bp, sp=sp,
         r8=r8, r9=r9, r10=r10, r11=r11, r12=r12, r13=r13, r14=r14, r15=r15,
         ip_=regs.ip, flags_=regs.flags, ax_=regs.ax, bx_=regs.bx, cx_=regs.cx, dx_=regs.dx, si_=regs.si, di_=regs.di,
         bp_=regs.bp, sp_=regs.sp, r8_=regs.r8, r9_=regs.r9, r10_=regs.r10, r11_=regs.r11, r12_=regs.r12,
         r13_=regs.r13, r14_=regs.r14, r15_=regs.r15)  # fmt: skip


def _step(engine: ProcessEngine, arguments: Namespace, stream: TextIO) -> int:
    """Arm the place, wait for one hit, and show what its instruction did to the registers.

    Return the status of the program, where it was started for this.
    """
    from kprobes.cli.native_workload import NativeWorkload
    from kprobes.session import attach_to, within_of

    workload = NativeWorkload(engine, arguments.command)
    with attach_to(engine, uprobe(arguments.place)(_both), within=within_of(engine)) as session, workload:
        workload.release()
        fields = _first_hit(session, workload)
        session.detach()
        if fields is not None:
            stream.write(_as_json(fields) if arguments.format == "json" else "".join(_changes(fields)))
            stream.flush()
    if fields is None:
        raise TargetError(f"{arguments.place} was not hit", hint="make the program come by meanwhile")
    return workload.status


def _first_hit(session: Session, workload: NativeWorkload) -> dict[str, int] | None:
    """Return the registers of one hit; None where the program ends or it takes too long."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        gone = workload.poll()
        for event in session.poll(0.05):
            return event.fields
        if gone:
            return None
    return None


def _as_json(fields: dict[str, int]) -> str:
    before = {name: fields[name] for name in _REGISTERS}
    return json.dumps({"before": before, "after": {name: fields[f"{name}_"] for name in _REGISTERS}}) + "\n"


def _changes(fields: dict[str, int]) -> Iterator[str]:
    yield "\nin earnest, one hit: before the instruction, and what it changed\n"
    for name in _REGISTERS:
        before, after = fields[name], fields[f"{name}_"]
        changed = "" if before == after else f"  ->  {after:#x}"
        yield f"  {name:<6}{before:#20x}{changed}\n"
