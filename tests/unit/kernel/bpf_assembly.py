"""A BPF assembler of a few lines, for programs written by hand."""

import struct

from kprobes.model.plan import Program, Relocation

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

_PUT = {1: 0x72, 2: 0x6A, 4: 0x62, 8: 0x7A}
_STORE = {1: 0x73, 2: 0x6B, 4: 0x63, 8: 0x7B}
_LOAD = {1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}


def op(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("<BBhi", code, dst | src << 4, off, imm)


def mov(dst, src):
    return op(0xBF, dst, src)


def movi(dst, imm):
    return op(0xB7, dst, imm=imm)


def addi(dst, imm):
    return op(0x07, dst, imm=imm)


def store(size, dst, off, src):
    return op(_STORE[size], dst, src, off)


def put(size, dst, off, imm):
    return op(_PUT[size], dst, 0, off, imm)


def load(size, dst, src, off):
    return op(_LOAD[size], dst, src, off)


def xadd(dst, off, src):
    return op(0xDB, dst, src, off)


def jeqi(dst, imm, off):
    return op(0x15, dst, 0, off, imm)


def jnei(dst, imm, off):
    return op(0x55, dst, 0, off, imm)


def ja(off):
    return op(0x05, off=off)


def call(helper):
    return op(0x85, imm=helper)


def imm64(dst):
    return op(0x18, dst) + op(0)


EXIT = op(0x95)

MAP_LOOKUP, MAP_UPDATE, KTIME, GET_STACKID, RING_OUTPUT, RING_RESERVE, RING_SUBMIT, RING_DISCARD, COOKIE = (
    1, 2, 5, 27, 130, 131, 132, 133, 174,
)  # fmt: skip
PROBE_READ_KERNEL = 113


class Code:
    """Collects instructions with their relocations and lines."""

    def __init__(self):
        self.parts = []
        self.relocations = []

    @property
    def index(self):
        return sum(map(len, self.parts)) // 8

    def add(self, *parts):
        self.parts += parts
        return self

    def copy(self):
        made = Code()
        made.parts, made.relocations = list(self.parts), list(self.relocations)
        return made

    def map(self, dst, name):
        self.relocations.append(Relocation(self.index, "map", name))
        return self.add(imm64(dst))

    def value(self, dst, name, addend=0):
        self.relocations.append(Relocation(self.index, "map_value", name, addend))
        return self.add(imm64(dst))

    def site(self, dst):
        self.relocations.append(Relocation(self.index, "site"))
        return self.add(imm64(dst))

    def program(self, way, **more):
        more.setdefault("name", "test")
        return Program(way=way, instructions=b"".join(self.parts), relocations=tuple(self.relocations), **more)


def add_to(code, name, addend=0, amount=1):
    """Add *amount* to the u64 at *addend* of an array map."""
    return code.value(R1, name, addend).add(movi(R2, amount), xadd(R1, 0, R2))


def emit(code, ring, size=40):
    """Put a record of *size* bytes into *ring*: id 1, site 0, the time, then the first argument (di)."""
    code.add(load(8, R6, R1, 112), call(KTIME), mov(R7, R0))
    code.map(R1, ring).add(movi(R2, size), movi(R3, 0), call(RING_RESERVE))
    words = [put(8, R0, at, 0) for at in range(24, size, 8)]
    body = [put(4, R0, 0, 1), put(4, R0, 4, 0), store(8, R0, 8, R7), store(8, R0, 16, R6), *words]
    body += [mov(R1, R0), movi(R2, 0), call(RING_SUBMIT)]
    return code.add(jeqi(R0, 0, len(body)), *body)


def type_information(name, lines):
    """Return (btf, func_info, line_info) of a program called *name*; *lines* are (instruction, line number, text)."""
    texts = b"\0"
    places = {}
    for text in ("int", name, "probe.py", *(text for _, _, text in lines)):
        places[text] = len(texts)
        texts += text.encode() + b"\0"
    types = struct.pack("<4I", places["int"], 1 << 24, 4, 1 << 24 | 32)
    types += struct.pack("<3I", 0, 13 << 24, 1) + struct.pack("<3I", places[name], 12 << 24 | 1, 2)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(texts))
    records = [struct.pack("<4I", at, places["probe.py"], places[text], number << 10 | 5) for at, number, text in lines]
    return head + types + texts, struct.pack("<II", 0, 3), b"".join(records)
