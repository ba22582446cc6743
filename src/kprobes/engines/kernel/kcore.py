"""The memory of the running kernel, as /proc/kcore shows it: an ELF core file whose segments are its mappings."""

from __future__ import annotations

import os
import struct

PATH = "/proc/kcore"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOAD = 1
_MOST_SEGMENTS = 4096


def read_kernel_memory(address: int, size: int, path: str = PATH) -> bytes | None:
    """Return *size* bytes at *address*; None where the kernel shows no memory, or not to us (needs CAP_SYS_RAWIO)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        place = _place_of(descriptor, address, size)
        content = os.pread(descriptor, size, place) if place is not None else b""
    except (OSError, struct.error):
        return None
    finally:
        os.close(descriptor)
    return content if len(content) == size else None


def _place_of(descriptor: int, address: int, size: int) -> int | None:
    """Return where in the file the bytes at *address* stand."""
    header = _HEADER.unpack(os.pread(descriptor, _HEADER.size, 0))
    table, entry, count = header[5], header[9], min(header[10], _MOST_SEGMENTS)
    raw = os.pread(descriptor, entry * count, table)
    for number in range(len(raw) // entry if entry >= _SEGMENT.size else 0):
        kind, _, offset, start, _, _, length, _ = _SEGMENT.unpack_from(raw, number * entry)
        if kind == _LOAD and start <= address and address + size <= start + length:
            return int(offset + address - start)
    return None
