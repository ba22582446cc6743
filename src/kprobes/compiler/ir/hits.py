"""Nodes about the hit: what it brings along, the memory around it, the world, and what goes out of it."""

from __future__ import annotations

from kprobes.compiler.ir.values import Operand, Place, Slot, Value
from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What the hit brings along.

    *what*: `argument` (*index* from 0 by the C ABI), `return` (the return value), `register` (*name*, a pt_regs
    name without prefix), `record` (*index* = byte offset in a tracepoint's record; the type of *to* gives the size),
    `function` (address of the probed instruction).
    """

    place: Place
    to: Value
    what: str
    index: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class WriteContext:
    """Change the probed program: `register` *name*, or `skip` (don't run the probed instruction), or `return`
    (leave the probed function with *source* as its value). Needs an unsafe plan."""

    place: Place
    what: str
    source: Value | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Builtin:
    """`to = name(arguments)`: an integer of the world.

    `now` (ns, monotonic), `cycles` (time stamp counter), `pid` (thread group), `tid`, `uid`, `gid`, `cpu`, `cgroup`,
    `stack`, `user_stack` (id or negative errno; i64), `random` (u32), `task` (address of the task_struct). `ppid` is no
    builtin: read it from `task`.
    """

    place: Place
    to: Value
    name: str
    arguments: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """`to = *(type of to *)(address + offset)`, read safely in *space*.

    *failed* (bool), where given, tells whether that failed.
    """

    place: Place
    to: Value
    address: Value
    offset: int = 0
    space: str = "kernel"
    failed: Value | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """Send a record of event *event* (its id); operands in field order."""

    place: Place
    event: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class SaveCall:
    """Entry part: keep the operands for the exit part of this call; the fields are `Handler.call_fields`."""

    place: Place
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class RestoreCall:
    """Exit part, first node: take back what SaveCall kept, into slots, and forget it. Without a record of this call
    the handler ends here; that is no miss, since the entry part may have returned early."""

    place: Place
    slots: tuple[Slot, ...]
