"""Cut a small real BTF out of a kernel's: the named functions and structs, and what they are made of.

    python tests/golden/symbols/make_btf.py /sys/kernel/btf/vmlinux small.btf

Structs are followed through pointers to DEPTH; beyond that they are only declared (FWD), which is what a compiler
writes for a type it hasn't seen whole.
"""

import struct
import sys
from pathlib import Path

from kprobes.symbols.btf import _EACH, HEADER, MAGIC, Btf, Kind

ROOTS = {
    Kind.FUNC: ("vfs_read", "vfs_write", "do_sys_openat2", "vfs_fsync", "_printk", "call_rcu", "schedule"),
    Kind.STRUCT: ("qstr", "dentry", "path"),
    Kind.TYPEDEF: ("pid_t", "gfp_t", "atomic_t", "u64", "size_t", "bool"),
    Kind.ENUM: ("pid_type", "rpm_status"),
    Kind.ENUM64: ("perf_callchain_context",),
    Kind.VAR: ("runqueues",),
    Kind.FLOAT: ("double",),
}
DEPTH = 1


def references(kind, words, vlen):
    """Return the places (in words after the common three) that hold type ids, and whether `value` is one too."""
    if kind == Kind.ARRAY:
        return [0, 1], False
    if kind in (Kind.STRUCT, Kind.UNION):
        return [3 * i + 1 for i in range(vlen)], False
    if kind == Kind.FUNC_PROTO:
        return [2 * i + 1 for i in range(vlen)], True
    plain = kind in (Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.FLOAT, Kind.FWD, Kind.DATASEC)
    return [], not plain


def reach(btf):
    """Return the depth at which each needed type is met first."""
    pending = [(r.id, 0) for kind, names in ROOTS.items() for n in names for r in btf.named(n, frozenset({kind}))]
    depths = {}
    while pending:
        number, depth = pending.pop(0)
        if number == 0 or depths.get(number, 99) <= depth:
            continue
        depths[number] = depth
        record = btf.record(number)
        if record.kind in (Kind.STRUCT, Kind.UNION) and depth > DEPTH:
            continue
        places, value = references(record.kind, record.words, record.vlen)
        targets = [record.words[p] for p in places] + ([record.value] if value else [])
        pending += [(t, depth + (record.kind == Kind.PTR)) for t in targets]
    return depths


def main(source, target):
    btf = Btf(Path(source).read_bytes())
    depths = reach(btf)
    number_of = {old: new for new, old in enumerate(sorted(depths), 1)} | {0: 0}
    strings = {"": 0}
    blob = bytearray(b"\0")

    def string(text):
        if text not in strings:
            strings[text] = len(blob)
            blob.extend(text.encode() + b"\0")
        return strings[text]

    types = bytearray()
    for old in sorted(depths):
        record = btf.record(old)
        name = string(btf.string(record.name_offset))
        if record.kind in (Kind.STRUCT, Kind.UNION) and depths[old] > DEPTH:
            types += struct.pack("<III", name, (record.kind == Kind.UNION) << 31 | Kind.FWD << 24, 0)
            continue
        places, value = references(record.kind, record.words, record.vlen)
        words = [number_of[w] if i in places else w for i, w in enumerate(record.words)]
        each = _EACH[record.kind]
        for at in range(0, len(words) if each else 0, each or 1):
            words[at] = string(btf.string(words[at]))
        info = record.flag << 31 | record.kind << 24 | record.vlen
        types += struct.pack(
            f"<III{len(words)}I", name, info, number_of[record.value] if value else record.value, *words
        )
    header = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(types), len(types), len(blob))
    Path(target).write_bytes(header + types + blob)
    print(len(depths), "types,", len(types) + len(blob), "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
