"""The world that generated handlers look at: C types, memory that has them, and what a hit brings along.

The memory lies at one fixed address on every engine: in the test's own process, in the program that a guest runs, and
as plain bytes for the interpreter. Some of its pointers lead astray, and behind its last page there is nothing.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kprobes.model.ctype import Array, Enum, Function, Int, Member, Parameter, Pointer, Struct, Void

CHAR = Int("char", 1, True, "char")
BOOL = Int("bool", 1, False, "bool")
INTS = {
    "s8": Int("signed char", 1, True), "u8": Int("unsigned char", 1, False), "s16": Int("short", 2, True),
    "u16": Int("unsigned short", 2, False), "int": Int("int", 4, True), "u32": Int("unsigned int", 4, False),
    "long": Int("long", 8, True), "u64": Int("unsigned long", 8, False), "char": CHAR, "bool": BOOL,
}  # fmt: skip
MODE = Enum("mode", 4, False, 100)
NODE, POINT = Struct("node", 160, False, 0), Struct("point", 16, False, 1)
MEMBERS: dict[str, dict[str, Member]] = {
    struct_name: {name: Member(name, *place) for name, place in members.items()}
    for struct_name, members in {
        "node": {
            "id": (INTS["u64"], 0), "weight": (INTS["long"], 64), "small": (INTS["u32"], 128),
            "debt": (INTS["int"], 160), "port": (INTS["u16"], 192), "shift": (INTS["s16"], 208),
            "tag": (INTS["u8"], 224), "sign": (INTS["s8"], 232), "on": (BOOL, 240), "mode": (MODE, 256),
            "kind": (INTS["u32"], 288, 3), "level": (INTS["int"], 291, 5), "mask": (INTS["u32"], 296, 24),
            "wide": (INTS["u64"], 320, 40), "top": (INTS["long"], 360, 24), "name": (Array(CHAR, 12), 448),
            "text": (Pointer(CHAR, const=True), 576), "next": (Pointer(NODE), 640), "peer": (Pointer(NODE), 704),
            "data": (Pointer(Void()), 768), "whole": (INTS["u64"], 832), "half": (INTS["u32"], 832),
            "prio": (Array(INTS["int"], 4), 896), "at": (POINT, 1024), "corners": (Array(POINT, 1), 1152),
        },
        "point": {"x": (INTS["u32"], 0), "y": (INTS["int"], 32), "z": (INTS["long"], 64)},
    }.items()
}  # fmt: skip


class Types:
    """The `Types` of this world."""

    def function(self, name: str) -> Function | None:
        return PROTOTYPES.get(name)

    def struct(self, name: str) -> Struct | None:
        return {"node": NODE, "point": POINT}.get(name)

    def member(self, struct: Struct, name: str) -> Member | None:
        return MEMBERS[struct.name].get(name)

    def member_names(self, struct: Struct) -> list[str]:
        return list(MEMBERS[struct.name])

    def enumerator(self, name: str) -> int | None:
        return {"MODE_OFF": 0, "MODE_SLOW": 2, "MODE_FAST": 7}.get(name)

    def enumerators(self, enum: Enum) -> dict[int, str]:
        return {0: "MODE_OFF", 2: "MODE_SLOW", 7: "MODE_FAST"} if enum == MODE else {}

    def variable(self, name: str) -> object:
        return None

    def typename(self, name: str) -> object:
        base = " ".join(name.replace("*", " ").split())
        found = self.struct(base.removeprefix("struct ")) if base.startswith("struct ") else INTS.get(base)
        if base == "void":
            found = Void()
        for _ in range(name.count("*") if found else 0):
            found = Pointer(found)
        return found


def _prototype(name: str, returns: object, **parameters: object) -> Function:
    return Function(name, tuple(Parameter(key, kind) for key, kind in parameters.items()), returns)


_POINTERS = {"text": Pointer(CHAR, const=True), "node": Pointer(NODE)}
PROTOTYPES = {
    "wide": _prototype("wide", INTS["long"], i=INTS["long"], n=INTS["u64"], c=INTS["int"], u=INTS["u32"], **_POINTERS),
    "narrow": _prototype("narrow", INTS["int"], s=INTS["s8"], b=BOOL, h=INTS["s16"], w=INTS["u16"], **_POINTERS),
    "odd": _prototype("odd", BOOL, k=INTS["u8"], i=INTS["int"], m=MODE, n=INTS["u64"], **_POINTERS),
    "long": _prototype("long", INTS["u64"], u=INTS["u32"], n=INTS["u64"], i=INTS["long"], c=INTS["int"], **_POINTERS),
}  # fmt: skip

# The memory.

BASE, PAGE, PAGES = 0x2_0000_0000, 4096, 2
SIZE = PAGE * PAGES
NODES = 12
TEXTS = (b"", b"a", b"bash", b"/etc/hostname", b"some longer text that is cut wherever it does not fit",
         b"\xc3\xa9t\xc3\xa9", b"x" * 100, b"a/b", b"sleep 10", b"aaaaaaaaaaaaaaa", b"aaaaaaaaaaaaaaab")  # fmt: skip
WILD = (0, 8, BASE + SIZE, BASE + SIZE + 24, (1 << 64) - 64, 1 << 47, 0x1234_5678_9ABC_DEF0)
EDGES = (0, 1, 2, 3, 7, 8, 10, 63, 64, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, (1 << 31) - 1, 1 << 31,
         (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, (1 << 64) - 1000)  # fmt: skip


def _make_memory() -> tuple[bytes, tuple[int, ...], tuple[int, ...]]:
    """Return the bytes, the addresses of the nodes, those of the texts."""
    source = random.Random(1)
    memory = bytearray(SIZE)
    texts, at = [], NODES * NODE.size
    for text in TEXTS:
        memory[at : at + len(text)] = text
        texts.append(BASE + at)
        at += len(text) + 1
    memory[SIZE - 5 :] = b"ends\0"
    memory[PAGE - 4 : PAGE + 4] = b"on two p"
    texts += [BASE + SIZE - 5, BASE + PAGE - 4]
    nodes = [BASE + NODE.size * number for number in range(NODES)]
    targets = [*nodes * 3, BASE + SIZE - 40, BASE + PAGE - 40, 0, 0, *WILD]
    for number in range(NODES):
        node = bytearray(source.randbytes(NODE.size))
        if number % 3 == 0:  # small numbers, as real ones are
            node[:48] = struct.pack("<qqiiHhBbBxIIQ", number, -number, 3 * number, -1, 80, -2, 7, -7, 1, 2, 5, 9)
        node[56:68] = source.choice(TEXTS)[:12].ljust(12, b"\0")
        struct.pack_into("<QQQQ", node, 72, source.choice([*texts, *WILD]), *source.choices(targets, k=3))
        node[30] &= 1
        memory[NODE.size * number : NODE.size * (number + 1)] = node
    assert len(memory) == SIZE
    return bytes(memory), (*nodes, BASE + SIZE - 40, BASE + PAGE - 40), tuple(texts)


MEMORY, NODE_PLACES, TEXT_PLACES = _make_memory()


@dataclass(frozen=True)
class Hit:
    """One call of the probed function: its six arguments as registers hold them, and what it returns."""

    arguments: tuple[int, ...]
    result: int = 0


@dataclass(frozen=True)
class Handler:
    """A generated handler: its source, the kind of its probe and the prototype of the probed function."""

    text: str
    kind: str = "uprobe"
    prototype: str = "wide"
    hits: tuple[Hit, ...] = field(default=())

    @property
    def is_pair(self) -> bool:
        return self.kind == "uretprobe"

    def __repr__(self) -> str:
        shown = "\n".join(f"    {[hex(word) for word in hit.arguments]} -> {hit.result:#x}" for hit in self.hits)
        return f"{self.kind} {self.prototype}\n{self.text}  on\n{shown}\n"


def make_hits(pick: Callable[[Sequence[int]], int], number: Callable[[], int], count: int) -> tuple[Hit, ...]:
    """Return *count* hits; *pick* chooses one of several, *number* gives any of 64 bits."""

    def word() -> int:
        found = pick((*EDGES, -1))
        return number() if found < 0 else found

    def one() -> Hit:
        words = tuple(word() for _ in range(4))
        text, node = pick((*TEXT_PLACES, *TEXT_PLACES, *WILD)), pick((*NODE_PLACES, *NODE_PLACES, *WILD))
        return Hit((*words, text, node), word())

    return tuple(one() for _ in range(count))
