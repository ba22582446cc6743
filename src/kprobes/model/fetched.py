"""The record of a definition's event, whoever makes it: our code at the hit, or the kernel's own event.

    _time  u64   nanoseconds of the clock                    _cpu  u32
    _pid   u32   the process (thread group)                  _tid  u32   the thread: the kernel's `common_pid`
    _comm  16    the thread's name
    _ip    u64   at an entry: the probed address; or at a return
    _func  u64   the probed function, and
    _ret   u64   where it returns to
    then the arguments by name; those of an array one by one: `name[0]`, `name[1]`, ...

The kinds of arguments go by the fetch type: `u*` uint, `s*` int, `x*` hex, `char` char, `symbol` symbol, `symstr`
symstr (the address, of which the kernel makes a string), `string` and `ustring` str. `_ip`, `_func` and `_ret` are
symbols in the kernel, plain addresses in a process. `EventLayout.definition` is the definition as the kernel lists it.

A string has a NUL at its end and is cut to the room that it has. One that can't be read is `(fault)`, which is what
newer kernels put into their records. A number that can't be read is 0: in a kernel's own record anything may stand
there. A record made from the kernel's own has the fields of `MOMENT` at its end, u8 each; `_stack` stands there where
the stack was asked for.
"""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import replace
from kprobes.model.layout import RECORD_HEADER, EventLayout, pack_fields
from kprobes.model.probe import LEAST_STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.definition import Argument, Definition, FetchType
    from kprobes.model.layout import Field

FAULT = b"(fault)"
# What the kernel's own record tells of the moment of the hit, and nobody else: its `common_flags` and its
# `common_preempt_count`.
MOMENT = ("_flags", "_preempt")
HEAD = ("_time", "_cpu", "_pid", "_tid", "_comm", "_ip", "_func", "_ret", *MOMENT, "_stack")
COMM_SIZE = 16
# Room for a string unless the user says otherwise: longer paths are rare, and each hit takes that much of the ring.
STRING_SIZE = 256
LARGEST_RECORD = 8192

_HEAD_FIELDS = [("_time", "uint", 8), ("_cpu", "uint", 4), ("_pid", "uint", 4), ("_tid", "uint", 4)]
_KINDS = {"u": "uint", "s": "int", "x": "hex"}
_NAMED_KINDS = {"char": "char", "symbol": "symbol", "symstr": "symstr", "string": "str", "ustring": "str"}


def event_layout(definition: Definition, number: int = 0, strings: int = 0) -> EventLayout:
    """Return how the event of *definition* is laid out, as event *number* of a plan.

    *strings* is the room for each string, its NUL included; 0 chooses.

    Raises:
        UsageError: the record becomes too large.
    """
    for one in definition.arguments:
        if one.name in HEAD:
            raise UsageError(f"the field {one.name} is there already", hint=f"call it other than {', '.join(HEAD)}")
    fields, size = _placed(definition, strings or STRING_SIZE)
    if size > LARGEST_RECORD and not strings:
        count = sum(one.kind == "str" and one.size == STRING_SIZE for one in fields)  # the others are short already
        small = STRING_SIZE - -(-(size - LARGEST_RECORD) // max(1, count))
        fields, size = _placed(definition, max(LEAST_STRING, small - small % 8))
    if size > LARGEST_RECORD:
        raise UsageError(
            f"the event {definition.event} takes {size} bytes, at most {LARGEST_RECORD} can be sent",
            hint="give its strings less room, or fetch less",
        )
    return EventLayout(number, definition.event, size, fields, definition=definition.text)


def kernels_layout(layout: EventLayout) -> EventLayout:
    """Return how a record is laid out that is made from the kernel's own of the event of *layout*."""
    least = len(FAULT) + 1  # a kernel may fail to read any of its strings
    shapes = [(one.name, one.kind, max(one.size, least) if one.kind == "str" else one.size) for one in layout.fields]
    fields, size = pack_fields([*shapes, *[(name, "uint", 1) for name in MOMENT]], RECORD_HEADER)
    return replace(layout, fields=fields, size=size)


def kind_of(kind: FetchType) -> str:
    """Return the kind of the field that a value of the fetch type *kind* becomes."""
    return _NAMED_KINDS.get(kind.name) or _KINDS[kind.name[0]]


def field_names(argument: Argument) -> list[str]:
    """Return the names of the fields that *argument* becomes."""
    return [f"{argument.name}[{index}]" for index in range(argument.count)] or [argument.name]


def _string_size(argument: Argument, strings: int) -> int:
    """Return the room that a string of *argument* takes: less than *strings* where it is known to be short."""
    from kprobes.model.definition import Comm, Text  # only here: events are shown without the tree

    if isinstance(argument.term, Comm):
        return COMM_SIZE
    return len(argument.term.value) + 1 if isinstance(argument.term, Text) else strings


def _placed(definition: Definition, strings: int) -> tuple[tuple[Field, ...], int]:
    address = "hex" if definition.is_user else "symbol"
    where = ("_func", "_ret") if definition.is_return else ("_ip",)
    shapes = [*_HEAD_FIELDS, ("_comm", "str", COMM_SIZE), *[(name, address, 8) for name in where]]
    for one in definition.arguments:
        kind = kind_of(one.type)
        size = _string_size(one, strings) if kind == "str" else 8 if kind == "symstr" else one.type.size
        shapes += [(name, kind, size) for name in field_names(one)]
    return pack_fields(shapes, RECORD_HEADER)
