"""The intermediate representation: one typed, target-free form of a handler.

A handler is one function, or two where a `yield` split it: `entry` and `exit`. A function is a graph of basic blocks
over single-assignment values (integers of C widths; pointers are u64) and mutable slots (the handler's locals:
integers, or byte buffers for strings). Nothing here knows BPF, x86 or the interpreter. The nodes stand in the files
beside this one by what they are about; this one has the handler that they make, and hands all names on.

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

from kprobes.compiler.ir.hits import (
    Builtin,
    Emit,
    Load,
    ReadContext,
    RestoreCall,
    SaveCall,
    WriteContext,
)
from kprobes.compiler.ir.maps import (
    MapAdd,
    MapBump,
    MapDelete,
    MapFold,
    MapRead,
    MapSample,
    MapWrite,
    QueuePop,
    QueuePush,
)
from kprobes.compiler.ir.numbers import (
    Binary,
    Compare,
    Const,
    Convert,
    Fault,
    Faulted,
    ReadSlot,
    WriteSlot,
)
from kprobes.compiler.ir.texts import (
    BuiltinText,
    CompareText,
    CompareTexts,
    ConstText,
    CopyText,
    CutText,
    FindText,
    FormatText,
    MatchText,
    Piece,
    ReadBytes,
    ReadText,
    RecordText,
    TextLength,
)
from kprobes.compiler.ir.values import (
    BINARY,
    BOOL,
    COMPARE,
    CONTEXTS,
    I64,
    SPACES,
    U32,
    U64,
    IntType,
    Operand,
    Place,
    Slot,
    Value,
)
from kprobes.frozen import dataclass
from kprobes.model.caution import Caution
from kprobes.model.layout import EventLayout, Field, MapLayout
from kprobes.model.plan import Assertion

__all__ = [
    "BINARY",
    "BOOL",
    "COMPARE",
    "CONTEXTS",
    "I64",
    "SPACES",
    "U32",
    "U64",
    "Binary",
    "Block",
    "Branch",
    "Builtin",
    "BuiltinText",
    "Compare",
    "CompareText",
    "CompareTexts",
    "Const",
    "ConstText",
    "Convert",
    "CopyText",
    "CutText",
    "Emit",
    "Fault",
    "Faulted",
    "FindText",
    "FormatText",
    "Function",
    "Handler",
    "IntType",
    "Jump",
    "Load",
    "MapAdd",
    "MapBump",
    "MapDelete",
    "MapFold",
    "MapRead",
    "MapSample",
    "MapWrite",
    "MatchText",
    "Node",
    "Operand",
    "Piece",
    "Place",
    "QueuePop",
    "QueuePush",
    "ReadBytes",
    "ReadContext",
    "ReadSlot",
    "ReadText",
    "RecordText",
    "RestoreCall",
    "Return",
    "SaveCall",
    "Slot",
    "Terminator",
    "TextLength",
    "Value",
    "WriteContext",
    "WriteSlot",
]

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
    | MatchText
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
    times per arrival from outside: the front guarantees it by a counter slot."""

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
    nothing of the entry has only *exit*; one split by `yield` has both where something must cross. *call_fields* lays
    out what crosses. *asserts* tells of each map that counts failures of an `assert`. *file* and *lines* (number from
    1 -> text) are for line info and messages, *cautions* for the user, *arch* is that of the probed code.
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
    arch: str = "x86_64"
