"""Compiles a generated handler and runs it on each engine, with the same hits."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Callable, Iterable
from functools import cache

from back.machine import ARGUMENTS, BpfMachine, Outcome, raw_target
from native.native_machine import NativeMachine

from agree.outside import names
from agree.universe import BASE, MEMORY, PROTOTYPES, SIZE, Handler, Types
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.nodes import Handler as Made
from kprobes.compiler.ir.verify import verify
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.errors import CompileError
from kprobes.events.aggregate import read_map
from kprobes.frozen import replace
from kprobes.model.probe import HandlerSource

SHARDS = 4
# What the compiler finds out about constants, and what a handler may be too much of. Anything else is a mistake.
REFUSALS = re.compile(
    "division by zero|does not fit|shift|too large|is never|always|at most|more than|known when|literal|may turn"
)
_FIXED_NOREPLACE = 0x100000
_STACKS = 0x7000_0000_0000  # where return addresses are said to lie, one call below the other


class RefusedError(Exception):
    """The handler computes something at compile time that the language refuses."""


def compiled(handler: Handler, shards: int = SHARDS, first_event_id: int = 0, ending: str = "") -> Made:
    """Return the IR of *handler*; the names of its maps get the *ending*.

    Raises:
        RefusedError: see there.
    """
    around = Surroundings(
        kind=handler.kind,
        types=Types(),
        prototype=PROTOTYPES[handler.prototype],
        shards=shards,
        first_event_id=first_event_id,
    )
    try:
        made = compile_handler(HandlerSource("h", handler.text, f"generated{ending}.py", names=names(ending)), around)
    except CompileError as error:
        if REFUSALS.search(str(error)):
            raise RefusedError(str(error)) from None
        raise
    verify(made)
    return made


@cache
def own_memory() -> object:
    """Put the world's memory into this process; return what keeps it there."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED_NOREPLACE
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    found = libc.mmap(ctypes.c_void_p(BASE), ctypes.c_size_t(SIZE), protection, flags, -1, ctypes.c_long(0))
    assert found == BASE, os.strerror(ctypes.get_errno())
    ctypes.memmove(BASE, MEMORY, SIZE)
    return found


def own_numbers() -> tuple[dict[str, int], dict[str, bytes]]:
    """Return who this process is."""
    with open("/proc/self/comm", "rb") as file:  # noqa: PTH123
        comm = file.read().rstrip(b"\n")
    return {"pid": os.getpid(), "tid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(), "now": 5}, {"comm": comm}


def on_interpreter(
    made: Made, handler: Handler, who: tuple[dict[str, int], dict[str, bytes]] | None = None, site: int = 0
) -> Outcome:
    numbers, texts = who or own_numbers()
    interpreter = Interpreter(made, DryWorld({("user", BASE): MEMORY}, numbers, texts), site=site)
    for number, hit in enumerate(handler.hits):
        frame = Frame(arguments=(*hit.arguments, *[0] * (ARGUMENTS - 6)), result=hit.result, call=number)
        interpreter.enter(frame)
        interpreter.leave(frame)
    found = interpreter.counters
    counters = (found.hits, found.missed, found.lost, found.faults)
    return Outcome(counters, interpreter.world.records, contents(made, interpreter.read_map))


def contents(made: Made, read: Callable[[str], Iterable[tuple[bytes, bytes]]]) -> dict[str, object]:
    """Return what is in the maps, whose pairs *read* gives; shares are joined, since each engine has others.

    What waits in a queue is left out: not every engine can look without taking it.
    """
    found: dict[str, object] = {}
    for layout in made.maps:
        if layout.kind != "queue":
            pairs = list(read(layout.name))
            shares = replace(layout, value_size=len(pairs[0][1])) if pairs else layout
            found[layout.name] = dict(pairs) if layout.key or layout.kind == "array" else str(read_map(pairs, shares))
    return found


def on_native(made: Made, handler: Handler) -> Outcome:
    """Run the native code in this process, each return right behind its entry."""
    own_memory()
    with NativeMachine(made) as machine:
        for hit in handler.hits:
            if made.entry is not None:
                machine.run(hit.arguments, program=-1, stack=_STACKS if made.exit else 0)
            if made.exit is not None:
                machine.run(hit.arguments, program=0, result=hit.result, stack=_STACKS)
        found = machine.outcome()
    return Outcome(found.counters, found.records, contents(made, lambda name: found.maps[name].items()))


def on_bpf(made: Made, handler: Handler) -> Outcome:
    """Run the BPF code on this machine's kernel, as a raw tracepoint with the hits as its arguments; no pairs."""
    own_memory()
    with BpfMachine(made, raw_target(shards=SHARDS)) as machine:
        for hit in handler.hits:
            machine.run(hit.arguments)
        found = machine.outcome()
    return Outcome(found.counters, found.records, contents(made, lambda name: found.maps[name].items()))
