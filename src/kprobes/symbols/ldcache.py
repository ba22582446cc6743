"""/etc/ld.so.cache: which file the name of a shared object means.

Source: sysdeps/generic/dl-cache.h of glibc.
"""

from __future__ import annotations

import struct

from kprobes.errors import FormatError
from kprobes.symbols.source import read_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = "/etc/ld.so.cache"
SIZE_LIMIT = 64 << 20
_OLD_MAGIC = b"ld.so-1.7.0\0"
_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("<20sII4xI12x")
_ENTRY = struct.Struct("<iIIIQ")
_OLD_ENTRY_SIZE = 12
# Flags of entries: what kind of library for which machine.
_MACHINES = {"x86_64": 0x0300, "aarch64": 0x0A00, "riscv64": 0x1000, "s390x": 0x0400, "ppc64": 0x0500}


def parse_ldcache(data: bytes, machine: str = "x86_64") -> Iterator[tuple[str, str]]:
    """Return (name, path) of each 64-bit library for *machine*, in the order in which the loader prefers them.

    Raises:
        FormatError: *data* is no cache of the current format.
    """
    start = 0
    if data.startswith(_OLD_MAGIC) and len(data) >= 16:
        old = int.from_bytes(data[12:16], "little") * _OLD_ENTRY_SIZE + 16
        start = old + 7 & ~7
    if data[start : start + len(_MAGIC)] != _MAGIC or len(data) < start + _HEADER.size:
        raise FormatError("the cache of shared objects is of an unknown format", hint="run ldconfig")
    _, count, _, _ = _HEADER.unpack_from(data, start)
    entries = data[start + _HEADER.size :][: count * _ENTRY.size]
    wanted = _MACHINES.get(machine, -1)
    for flags, key, value, _, _ in _ENTRY.iter_unpack(entries[: len(entries) // _ENTRY.size * _ENTRY.size]):
        if flags & 0xFF00 == wanted:
            yield _string(data, start + key), _string(data, start + value)


def load_ldcache(path: str = CACHE) -> list[tuple[str, str]]:
    """Return (name, path) of each library the loader of this machine knows; none where there is no cache."""
    import os

    try:
        return list(parse_ldcache(read_source(path, SIZE_LIMIT), os.uname().machine))
    except FormatError:
        return []


def _string(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + 4096)
    return data[at:end].decode("utf-8", "surrogateescape") if end > at else ""
