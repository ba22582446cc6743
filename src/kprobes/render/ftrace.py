"""Lines as the kernel's own `trace` file has them, from plain data.

               cat-1234    [000] d..2.   123.456789: opens: (do_sys_openat2+0x0/0x160) dfd=0xffffff9c name="/etc/passwd"

The five characters behind the CPU tell of the moment of the hit: interrupts off, a switch of tasks needed, inside of an
interrupt, how often preemption and (not before Linux 5.13) migration are disabled. Times are rounded to microseconds.

Strings stand as they are, whatever they contain: who writes to a terminal escapes the lines.

Source: kernel/trace/trace_output.c (trace_print_context, trace_print_lat_fmt), trace.c (the heading), trace_probe.c
(the types), Linux 5.10 to 6.18.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_IRQS_OFF, _LAZY, _RESCHEDULE, _HARD, _SOFT, _PREEMPT_RESCHEDULE, _NMI, _BH_OFF = (1 << bit for bit in range(8))
_PREEMPTION = {
    _RESCHEDULE | _PREEMPT_RESCHEDULE: "N",
    _RESCHEDULE: "n",
    _PREEMPT_RESCHEDULE: "p",
    _LAZY | _RESCHEDULE | _PREEMPT_RESCHEDULE: "B",
    _LAZY | _PREEMPT_RESCHEDULE: "L",
    _LAZY | _RESCHEDULE: "b",
    _LAZY: "l",
}
FAULT = "(fault)"
_QUOTED = frozenset({"str", "symstr"})

_HEADING_OF_FOUR = """\
#                                _-----=> irqs-off
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| /     delay
#           TASK-PID     CPU#  ||||   TIMESTAMP  FUNCTION
#              | |         |   ||||      |         |
"""
_HEADING_OF_FIVE = """\
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""


class Context(NamedTuple):
    """What stands before the event: the thread (*comm*, *tid*), the *cpu*, the time in ns, and the kernel's
    `common_flags` and `common_preempt_count`, 0 where nobody knows them."""

    comm: str
    tid: int
    cpu: int
    time_ns: int
    flags: int = 0
    preempt: int = 0


class Argument(NamedTuple):
    """One argument: `uint`, `int`, `hex` and `char` have numbers, all other kinds a text; arrays have several
    *values*."""

    name: str
    kind: str
    values: Sequence[int | str]
    is_array: bool = False


class Style(NamedTuple):
    """How the lines of a kernel differ: whether a fifth character tells of *migration*, and whether the need of a
    switch may be *lazy*."""

    migration: bool = True
    lazy: bool = True


def style_of(release: str) -> Style:
    """Return how the lines of the kernel of *release* (`6.1.0-13-amd64`) look."""
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return Style(migration=version >= (5, 13), lazy=version >= (6, 13))


def heading(style: Style, *, cpus: int, entries: int, lost: int = 0) -> str:
    """Return what the `trace` file begins with: it has *entries*, and *lost* ones were overwritten before."""
    counts = f"# entries-in-buffer/entries-written: {entries}/{entries + lost}   #P:{cpus}\n#\n"
    return f"# tracer: nop\n#\n{counts}{_HEADING_OF_FIVE if style.migration else _HEADING_OF_FOUR}"


def line(context: Context, event: str, place: str, arguments: Sequence[Argument], style: Style) -> str:
    """Return the line of a hit; *place* is what stands in parentheses."""
    comm, tid, cpu, time_ns, flags, preempt = context
    padding = " " * (16 - len(comm.encode("utf-8", "surrogateescape")))
    microseconds = (time_ns + 500) // 1000
    shown = "".join([f" {one.name}={_values(one)}" for one in arguments])
    return (
        f"{padding}{comm}-{tid:<7} [{cpu:03}] {_moment(flags, preempt, style)}"
        f" {microseconds // 1_000_000:5}.{microseconds % 1_000_000:06}: {event}: ({place}){shown}\n"
    )


def _moment(flags: int, preempt: int, style: Style) -> str:
    off = {0: ".", _IRQS_OFF: "d", _BH_OFF: "b", _IRQS_OFF | _BH_OFF: "D"}[flags & (_IRQS_OFF | _BH_OFF)]
    need = _PREEMPTION.get(flags & ((_LAZY if style.lazy else 0) | _RESCHEDULE | _PREEMPT_RESCHEDULE), ".")
    hard, soft, nmi = flags & _HARD, flags & _SOFT, flags & _NMI
    if nmi:
        inside = "Z" if hard else "z"
    elif hard:
        inside = "H" if soft else "h"
    else:
        inside = "s" if soft else "."
    if not style.migration:
        return f"{off}{need}{inside}{_depth(preempt)}"
    return f"{off}{need}{inside}{_depth(preempt & 15)}{_depth(preempt >> 4)}"


def _depth(count: int) -> str:
    return f"{count:x}" if count else "."


def _values(argument: Argument) -> str:
    shown = [_value(argument.kind, value) for value in argument.values]
    return f"{{{','.join(shown)}}}" if argument.is_array else shown[0]


def _value(kind: str, value: int | str) -> str:
    if isinstance(value, str):
        return f'"{value}"' if kind in _QUOTED and value != FAULT else value
    if kind == "char":
        return f"'{bytes([value & 0xFF]).decode('utf-8', 'surrogateescape')}'"
    return f"{value:#x}" if kind == "hex" else str(value)
