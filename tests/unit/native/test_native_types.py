"""Struct classes, computed indexes and annotations: native code reads real memory as the interpreter reads its own."""

import ctypes
import random

from back.machine import own_world, run_interpreter
from front.cases import compile_text
from front.universe import Inner, Key, Mode

from kprobes.model.mapspec import HashMap
from native.native_machine import run_native

HANDLERS = {
    "fields": """def h(p: Header):
    emit(p.magic, p.length, p.low, p.high, p.kind, p.inner.bytes[2], p.items[1].code)
""",
    "index": """def h(p: Header, i: i64):
    emit(p.inner.bytes[i], p.items[i].code, p.items[i].bytes[i & 3], p.name[i])
""",
    "strings": """def h(p: Header, s: cstr):
    emit(p.name, p.path, s, s == p.path, s.string(7), p.next.name)
""",
    "whole": """def h(p: Header):
    emit(**p)
    emit(p.items, p.inner)
""",
    "around": """def h(p: Header):
    q = container_of(p.next, Header, "inner.bytes[1]")
    emit(q.length, q.path, q.low)
""",
    "made": """def h(p: Header, n: i32):
    k = Key(n, p.name, p)
    k = Key(n + 1, comm(), None) if n > 3 else k
    emit(k)
""",
    "casts": """def h(p: ptr, n: u64):
    emit(p.cast(Header).length, p.cast(u16[8])[n], cast(p, "u8 *")[3], i8(n), Mode(n))
""",
    "union": """def h(e: ptr[Either], m: Mode):
    emit(e.number, e.header.name, e.header.low, m)
""",
    "kept": """def h(p: Header, n: u16):
    seen[Key(n & 3, p.name, p)] = p.inner
    inner = seen[Key(n & 1, p.name, p)]
    modes[Mode(n & 7)] += p.length
    emit(inner.code, inner.bytes[2], modes[Mode(1)])
""",
}
MAPS = {"seen": HashMap("seen", key=Key, value=Inner), "modes": HashMap("modes", key=Mode, value=int)}


def test_types_agree_on_whole_and_broken_memory():
    source = random.Random(7)
    memory = ctypes.create_string_buffer(source.randbytes(4096), 4096)
    start = ctypes.addressof(memory)
    for at in range(0, 4096 - 64, 64):  # pointers that lead on inside, or nowhere
        for offset in (16, 24):
            inside = start + source.randrange(64, 3072)
            inside = source.choice((inside, inside, 0, 1 << 47))
            memory[at + offset : at + offset + 8] = inside.to_bytes(8, "little")
    indexes = [0, 1, 2, 3, 4, 5, 7, 8, 255, 1 << 40, (1 << 64) - 1, 1 << 63]
    hits = [[start + 64 * n, source.choice(indexes), start + 100, 1, 2, 3] for n in range(40)]
    hits += [[start + 64 * n, start + source.randrange(2048), 9, 1, 2, 3] for n in range(8)]
    hits += [[0, 1, 2, 3, 4, 5], [1 << 47, 0, 0, 0, 0, 0]]
    for name, text in HANDLERS.items():
        made = compile_text(text, "uprobe", **MAPS)
        usable = [hit for hit in hits if name != "strings" or not 0 < hit[1] < 1 << 16]
        ours, theirs = run_native(made, usable), run_interpreter(made, usable, own_world([memory]))
        assert (name, ours.counters) == (name, theirs.counters)
        assert (ours.records, ours.maps) == (theirs.records, theirs.maps), name
        assert 0 < ours.counters[3] < len(usable) or name == "made", (name, ours.counters)
