"""The intermediate representation: one typed, target-free form of a handler.

A handler is one function, or two where a `yield` split it: `entry` and `exit`. A function is a graph of basic
blocks over
single-assignment values (integers of C widths; pointers are u64) and mutable slots (the handler's locals: integers,
or byte
buffers for strings). Nothing here knows BPF, x86 or the interpreter.

Semantics that every lowering and the interpreter share:

- Integer arithmetic wraps at the width of its type. `div` and `mod` round as Python's do (towards minus infinity) on
  signed types. Division by zero gives 0 and raises the hit's fault flag. Shift counts are taken modulo the width.
- A read that fails gives zero (an empty string) and raises the fault flag; the handler goes on. A hit with the flag up
  counts as one fault of its site when the handler ends.
- An event that finds no room is dropped and counted as lost. A map that is full drops the write and raises the fault
  flag. An index outside of an array reads zeros, writes nothing, and raises the flag.
  A `SaveCall` that finds no room counts the hit as missed, and the exit part won't run for that call.
- Every cycle of blocks passes through a counted loop header, so every function ends (see `verify`).
"""

from __future__ import annotations

from kprobes.frozen import dataclass
from kprobes.model.caution import Caution
from kprobes.model.layout import EventLayout, Field, MapLayout
from kprobes.model.plan import Assertion


@dataclass(frozen=True, slots=True)
class IntType:
    """An integer of *bits* (1, 8, 16, 32 or 64); one bit is a truth value."""

    bits: int
    signed: bool

    def __str__(self) -> str:
        return "bool" if self.bits == 1 else f"{'i' if self.signed else 'u'}{self.bits}"


BOOL = IntType(1, False)
I64 = IntType(64, True)
U64 = IntType(64, False)
U32 = IntType(32, False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node comes from: *line* counts from 1, *column* from 0."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Value:
    """A single-assignment value; *number* is unique in its function."""

    number: int
    type: IntType

    def __str__(self) -> str:
        return f"%{self.number}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A mutable local: an integer of *type*, or a byte buffer of *size* bytes where *type* is None.

    A byte buffer holds a NUL-terminated string, zero-filled behind its end.
    """

    name: str
    type: IntType | None
    size: int = 0


Operand = Value | Slot  # a Slot as operand is always a byte buffer

BINARY = frozenset(
    {"add", "sub", "mul", "div", "mod", "and", "or", "xor", "shl", "shr"}
)  # shr and div follow the type's sign
COMPARE = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})  # by the sign of the operands' type
SPACES = frozenset({"kernel", "user", "any"})  # any: decided at run time by the address
CONTEXTS = frozenset({"argument", "return", "register", "record", "function"})


@dataclass(frozen=True, slots=True)
class Const:
    """`to = value`, which fits the type."""

    place: Place
    to: Value
    value: int


@dataclass(frozen=True, slots=True)
class Binary:
    """`to = left op right`; all three of one type, not bool."""

    place: Place
    to: Value
    op: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Compare:
    """`to = left op right`; *to* is bool, the operands are of one type."""

    place: Place
    to: Value
    op: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Convert:
    """Change the type: truncate, extend by the sign of the *source's* type, or (to bool) compare with zero."""

    place: Place
    to: Value
    source: Value


@dataclass(frozen=True, slots=True)
class ReadSlot:
    """`to = slot` (an integer slot; zero before the first write)."""

    place: Place
    to: Value
    slot: Slot


@dataclass(frozen=True, slots=True)
class WriteSlot:
    """`slot = source` of the same type."""

    place: Place
    slot: Slot
    source: Value


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What the hit brings along.

    *what*: `argument` (*index* from 0 by the C ABI), `return` (the return value), `register` (*name*, a pt_regs
    name without
    prefix), `record` (*index* = byte offset in a tracepoint's record; the type of *to* gives the size), `function`
    (address
    of the probed instruction).
    """

    place: Place
    to: Value
    what: str
    index: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class WriteContext:
    """Change the probed program: `register` *name*, or `skip` (don't run the probed instruction), or `return`
    (leave the
    probed function with *source* as its value). Needs an unsafe plan."""

    place: Place
    what: str
    source: Value | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """`to = *(type of to *)(address + offset)`, read safely in *space*."""

    place: Place
    to: Value
    address: Value
    offset: int = 0
    space: str = "kernel"


@dataclass(frozen=True, slots=True)
class ReadText:
    """Read the NUL-terminated string at *address* + *offset* into a byte buffer, cut to its size with the NUL."""

    place: Place
    slot: Slot
    address: Value
    offset: int = 0
    space: str = "kernel"


@dataclass(frozen=True, slots=True)
class ReadBytes:
    """Copy exactly the slot's size of bytes from *address* + *offset*."""

    place: Place
    slot: Slot
    address: Value
    offset: int = 0
    space: str = "kernel"


@dataclass(frozen=True, slots=True)
class RecordText:
    """Read a `__data_loc` string of a tracepoint's record: the u32 at *offset* says where it is (low half: offset,
    high: size). With *size* > 0 there is no such u32: the record holds a char array of *size* bytes at *offset*."""

    place: Place
    slot: Slot
    offset: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class ConstText:
    """Fill a byte buffer with *text*, which is shorter than it."""

    place: Place
    slot: Slot
    text: bytes


@dataclass(frozen=True, slots=True)
class CopyText:
    """Copy one byte buffer to another, cut to the target's size with the NUL."""

    place: Place
    slot: Slot
    source: Slot


@dataclass(frozen=True, slots=True)
class BuiltinText:
    """Fill a byte buffer by a builtin: `comm`."""

    place: Place
    slot: Slot
    name: str


@dataclass(frozen=True, slots=True)
class CompareText:
    """`to` (bool) = the string in *slot* equals *text* (*prefix*: begins with it); *text* fits the buffer."""

    place: Place
    to: Value
    slot: Slot
    text: bytes
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class CompareTexts:
    """`to` (bool) = both buffers hold the same string."""

    place: Place
    to: Value
    left: Slot
    right: Slot


@dataclass(frozen=True, slots=True)
class FindText:
    """`to` (bool) = *text*, which is not empty, lies somewhere in the string in *slot* (*at_end*: ends it)."""

    place: Place
    to: Value
    slot: Slot
    text: bytes
    at_end: bool = False


@dataclass(frozen=True, slots=True)
class TextLength:
    """`to` (i64) = the bytes of the string in *slot*, without the NUL."""

    place: Place
    to: Value
    slot: Slot


@dataclass(frozen=True, slots=True)
class CutText:
    """Fill *slot* with the *length* bytes of the string in *source* from number *start* on (both u64), as far as there
    are any and cut to its size; *source* is another buffer."""

    place: Place
    slot: Slot
    source: Slot
    start: Value
    length: Value


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a formatted string: *text* as it stands, then the next operand where *takes* is set.

    A string operand is put there whole. An integer (i64 or u64) is written in *base* 10 or 16, *prefix* between its
    sign and its digits, of which there are at least *least* (zeros are put before; a minus counts as one of them) and
    at most *most*.
    """

    text: bytes = b""
    takes: bool = False
    base: int = 10
    prefix: bytes = b""
    least: int = 1
    most: int = 20
    upper: bool = False


@dataclass(frozen=True, slots=True)
class FormatText:
    """Fill *slot* with *pieces* one after the other; all that they can come to has room in it."""

    place: Place
    slot: Slot
    pieces: tuple[Piece, ...]
    operands: tuple[Operand, ...]


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
class MapAdd:
    """Count: add *amount* under *key* (empty for a map without key), atomically."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    amount: Value


@dataclass(frozen=True, slots=True)
class MapSample:
    """Histogram: add *weight* to the bucket of *sample* (i64 or u64, by its type) under *key*, atomically."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    sample: Value
    weight: Value


@dataclass(frozen=True, slots=True)
class MapFold:
    """Min, Max, Avg: take *sample* (i64 or u64, by its type) in under *key*. To Min and Max what is above i64 is its
    highest value."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    sample: Value


@dataclass(frozen=True, slots=True)
class MapRead:
    """HashMap: look *key* up; *found* (bool) tells; integer results go to *to*, byte fields to *texts* (by field
    order,
    None in the other tuple's place). Missing: zeros. Array: the same, *key* is one index of 64 bits."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    found: Value
    to: tuple[Value | None, ...]
    texts: tuple[Slot | None, ...] = ()


@dataclass(frozen=True, slots=True)
class MapWrite:
    """HashMap and Array: store *values* (by field order) under *key*."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    values: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class MapBump:
    """HashMap and Array: add *amount* to the single integer field under *key*, starting from zero, atomically."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    amount: Value


@dataclass(frozen=True, slots=True)
class MapDelete:
    """HashMap: forget *key*; *found* (bool) tells whether it was there."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    found: Value


@dataclass(frozen=True, slots=True)
class QueuePush:
    """Queue: append *values* (by field order)."""

    place: Place
    map: str
    values: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class QueuePop:
    """Queue: take the oldest value; *found*, *to* and *texts* as `MapRead` has them."""

    place: Place
    map: str
    found: Value
    to: tuple[Value | None, ...]
    texts: tuple[Slot | None, ...] = ()


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
    the
    handler ends here; that is no miss, since the entry part may have returned early."""

    place: Place
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Raise the hit's fault flag and go on: a `while` ran past its bound."""

    place: Place


@dataclass(frozen=True, slots=True)
class Faulted:
    """`to` (bool) = whether the hit's fault flag is up by now."""

    place: Place
    to: Value


Node = (
    Const
    | Binary
    | Compare
    | Convert
    | ReadSlot
    | WriteSlot
    | ReadContext
    | WriteContext
    | Load
    | ReadText
    | ReadBytes
    | RecordText
    | ConstText
    | CopyText
    | BuiltinText
    | CompareText
    | CompareTexts
    | FindText
    | TextLength
    | CutText
    | FormatText
    | Builtin
    | MapAdd
    | MapSample
    | MapFold
    | MapRead
    | MapWrite
    | MapBump
    | MapDelete
    | QueuePush
    | QueuePop
    | Emit
    | SaveCall
    | RestoreCall
    | Fault
    | Faulted
)


@dataclass(frozen=True, slots=True)
class Jump:
    """Go to block *target*."""

    place: Place
    target: str


@dataclass(frozen=True, slots=True)
class Branch:
    """Go to *yes* or *no* by a bool."""

    place: Place
    condition: Value
    yes: str
    no: str


@dataclass(frozen=True, slots=True)
class Return:
    """End of this part of the handler."""

    place: Place


Terminator = Jump | Branch | Return


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes run in order, then the terminator. *bound* > 0 marks a loop header that is entered at most bound + 1
    times per
    arrival from outside: the front guarantees it by a counter slot."""

    label: str
    nodes: tuple[Node, ...]
    end: Terminator
    bound: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """One part of a handler; the first block is where it begins. *part* is `entry` or `exit`."""

    name: str
    part: str
    slots: tuple[Slot, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Handler:
    """A compiled front: the parts, and the maps and events they use.

    A plain handler of an entry-like probe has only *entry*; a handler without `yield` of a return probe that needs
    nothing
    of the entry has only *exit*; one split by `yield` has both where something must cross. *call_fields* lays out what
    crosses. *asserts* tells of each map that counts failures of an `assert`. *file* and *lines* (number from 1 -> text)
    are for line info and messages, *cautions* for the user.
    """

    name: str
    entry: Function | None
    exit: Function | None
    maps: tuple[MapLayout, ...]
    events: tuple[EventLayout, ...]
    call_fields: tuple[Field, ...]
    file: str
    lines: dict[int, str]
    cautions: tuple[Caution, ...] = ()
    asserts: tuple[Assertion, ...] = ()
