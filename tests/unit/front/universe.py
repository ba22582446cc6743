"""A small world of C types and Python names for the compiler's tests: what a kernel's BTF would tell of it."""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass

from kprobes.model import cwords, words
from kprobes.model.ctype import Array, Enum, Float, Function, Int, Member, Parameter, Pointer, Struct, Void
from kprobes.model.cwords import bits, char, cstr, i32, u8, u16, u32, u64
from kprobes.model.mapspec import Count, HashMap, Histogram, Stack, String, Symbol, Unsigned
from kprobes.model.structs import struct, union

CHAR = Int("char", 1, True, "char")
BOOL = Int("bool", 1, False, "bool")
INTS = {
    "char": CHAR, "bool": BOOL, "signed char": Int("signed char", 1, True), "short": Int("short", 2, True),
    "int": Int("int", 4, True), "long": Int("long", 8, True), "u8": Int("unsigned char", 1, False),
    "unsigned char": Int("unsigned char", 1, False), "u16": Int("unsigned short", 2, False),
    "u32": Int("unsigned int", 4, False), "unsigned int": Int("unsigned int", 4, False),
    "u64": Int("unsigned long long", 8, False), "size_t": Int("unsigned long", 8, False),
    "s64": Int("long long", 8, True), "u128": Int("unsigned __int128", 16, False),
}  # fmt: skip
KEYS = (
    "qstr",
    "dentry",
    "path",
    "file",
    "task_struct",
    "flags",
    "packed",
    "sock",
    "big",
    "point",
    "opaque",
    "sockaddr",
)
STRUCTS = {name: Struct(name, 0, False, key) for key, name in enumerate(KEYS)}
SIZES = {
    "qstr": 16, "dentry": 64, "path": 16, "file": 96, "task_struct": 256, "flags": 16, "packed": 9, "sock": 32,
    "big": 24, "point": 16, "opaque": 0, "sockaddr": 16,
}  # fmt: skip
STRUCTS = {name: Struct(name, size, False, key) for key, (name, size) in enumerate(SIZES.items())}
STATE = Enum("state", 4, False, 100)
U32, U64, INT = INTS["u32"], INTS["u64"], INTS["int"]


def to(name: str) -> Pointer:
    return Pointer(STRUCTS[name])


# name -> (type, bit offset, bit size); members of anonymous structs and unions stand among the others.
MEMBERS = {
    "qstr": {"hash": (U32, 0), "len": (U32, 32), "name": (Pointer(INTS["u8"]), 64)},
    "dentry": {"d_parent": (to("dentry"), 0), "d_name": (STRUCTS["qstr"], 64), "d_iname": (Array(CHAR, 32), 192)},
    "path": {"mnt": (to("opaque"), 0), "dentry": (to("dentry"), 64)},
    "file": {
        "f_path": (STRUCTS["path"], 64), "f_flags": (U32, 256), "f_mode": (U32, 288), "f_pos": (INTS["s64"], 320),
        "f_count": (U64, 384), "private_data": (Pointer(Void()), 448), "f_op": (Pointer(Function("", (), Void())), 512),
        "f_weight": (Float("double", 8), 576), "f_wide": (INTS["u128"], 640),
    },
    "task_struct": {
        "pid": (INT, 0), "comm": (Array(CHAR, 16), 64), "parent": (to("task_struct"), 192), "exit": (BOOL, 256),
        "state": (STATE, 288), "prio": (Array(INT, 4), 320), "paths": (Array(STRUCTS["path"], 2), 448),
        "user_name": (Pointer(CHAR, True), 704),
    },
    "flags": {
        "kind": (U32, 0, 3), "level": (INT, 3, 5), "wide": (U64, 64, 40), "on": (BOOL, 104, 1), "low": (U32, 8, 8),
    },
    "packed": {"before": (INTS["u8"], 0), "across": (U32, 9, 30), "last": (U32, 42, 30)},
    "sock": {
        "dport": (INTS["u16"], 0), "sport": (INTS["u16"], 16), "family": (INTS["u16"], 32), "next": (to("sock"), 64),
    },
    "big": {"a": (U64, 0), "b": (U64, 64), "c": (U64, 128)},
    "point": {"x": (Float("double", 8), 0), "y": (Float("double", 8), 64)},
    "sockaddr": {"sa_family": (INTS["u16"], 0), "sa_data": (Array(CHAR, 14), 16)},
    "opaque": {},
}  # fmt: skip


class Universe:
    """The `Types` of this world."""

    def function(self, name: str) -> Function | None:
        return FUNCTIONS.get(name)

    def struct(self, name: str) -> Struct | None:
        return STRUCTS.get(name)

    def member(self, struct: Struct, name: str) -> Member | None:
        found = MEMBERS[struct.name].get(name)
        return Member(name, *found) if found else None

    def member_names(self, struct: Struct) -> list[str]:
        return list(MEMBERS[struct.name])

    def enumerator(self, name: str) -> int | None:
        return {"O_CREAT": 64, "TASK_DEAD": 128}.get(name)

    def enumerators(self, enum: Enum) -> dict[int, str]:
        return {0: "RUNNING", 1: "SLEEPING", 128: "TASK_DEAD"} if enum == STATE else {}

    def variable(self, name: str) -> object:
        return {"init_task": STRUCTS["task_struct"], "jiffies": INTS["long"], "runqueue": STRUCTS["sock"]}.get(name)

    def typename(self, name: str) -> object:
        base = " ".join(name.replace("*", " ").split())
        found: object = STRUCTS.get(base.removeprefix("struct ")) if base.startswith("struct ") else INTS.get(base)
        if base == "void":
            found = Void()
        if found is None:
            return None
        for _ in range(name.count("*")):
            found = Pointer(found)
        return found


def prototype(name: str, returns: object, **parameters: object) -> Function:
    return Function(name, tuple(Parameter(key, ctype) for key, ctype in parameters.items()), returns)


FUNCTIONS = {
    function.name: function
    for function in (
        prototype(
            "vfs_read", INTS["long"],
            file=to("file"), buf=Pointer(CHAR, True), count=INTS["size_t"], pos=Pointer(INTS["s64"]),
        ),
        prototype("do_sys_open", INT, dfd=INT, filename=Pointer(CHAR, const=True), flags=INT, mode=INTS["u16"]),
        prototype("__sys_connect", INT, fd=INT, uservaddr=to("sockaddr"), addrlen=INT),
        prototype("schedule", Void()),
        prototype("do_flags", BOOL, flags=to("flags"), packed=to("packed"), task=to("task_struct"), sk=to("sock")),
        prototype("mixed", U32, a=INT, weight=Float("double", 8), b=U32, big=STRUCTS["big"], c=U64),
        prototype("make_big", STRUCTS["big"], seed=INT),
        prototype("get_task", to("task_struct"), pid=INT),
        prototype("ints", INTS["long"], i=INT, l=INTS["long"], u=U32, n=U64, c=INTS["signed char"], b=BOOL),
    )
}  # fmt: skip


@dataclass(frozen=True)
class RecordField:
    name: str
    type: object
    offset: int
    size: int
    signed: bool = False
    location: str = ""


SCHED_SWITCH = (
    RecordField("common_pid", INT, 4, 4, True),
    RecordField("prev_comm", Array(CHAR, 16), 8, 16),
    RecordField("prev_pid", INT, 24, 4, True),
    RecordField("prev_state", INTS["long"], 32, 8, True),
    RecordField("filename", Array(CHAR, 0), 40, 4, False, "data"),
    RecordField("args", Array(U64, 6), 48, 48),
    RecordField("ptr", Pointer(CHAR), 96, 8),
    RecordField("fd", INT, 104, 8),
    RecordField("cpumask", Array(U64, 0), 112, 4, False, "data"),
)


class Kind(enum.IntEnum):
    SMALL = 1
    LARGE = 4096


class Mode(enum.IntFlag):
    READ = 1
    WRITE = 2
    BOTH = 3
    SYNC = 8


@struct
class Inner:
    code: u16
    bytes: u8[4]


@struct
class Header:
    magic: u32
    length: u16
    name: char[6]
    next: "Header *"
    path: cstr
    inner: Inner
    kind: Kind
    low: bits(u32, 3)
    high: bits(i32, 5)
    items: Inner[2]


@struct
class Key:
    pid: u32
    name: char[16]
    at: "Header *"


@union
class Either:
    number: u64
    header: Header


class Limits:
    DEPTH = 4


class Objects:
    """Things handlers of the tests see as module-level names."""

    calls = Count("calls")
    by_comm = Count("by_comm", by=str)
    by_pair = Count("by_pair", by=(int, str))
    by_stack = Count("by_stack", by=Stack)
    by_symbol = Count("by_symbol", by=Symbol)
    usecs = Histogram("usecs", by=str)
    sizes = Histogram("sizes", linear=(0, 4096, 256))
    opened = HashMap("opened", key=int, value=int)
    names = HashMap("names", key=Unsigned(4), value=(int, String(32)))
    paths = HashMap("paths", key=str, value=bool)
    narrow = HashMap("narrow", key=Unsigned(1), value=Unsigned(2))


NAMES: dict[str, object] = {
    **{name: value for name, value in vars(Objects).items() if not name.startswith("_")},
    **words.WORDS,
    "Kind": Kind,
    "Limits": Limits,
    "Mode": Mode,
    "Inner": Inner,
    "Header": Header,
    "Either": Either,
    "Key": Key,
    **cwords.WORDS,
    "errno": errno,
    "LIMIT": 8,
    "DEBUG": False,
    "PATTERN": "bash",
    "PORTS": (22, 80, 443),
    "RATIO": 0.5,
    "TABLE": {1: 2},
}
