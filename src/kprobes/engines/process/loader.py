"""Where the dynamic loader tells debuggers that objects have come or gone.

The program's dynamic section leads to `struct r_debug` (DT_DEBUG); the loader calls the empty function `r_brk` before
and after it changes the list of objects: when an object is mapped none of its code has run, its constructors neither.
glibc and musl do so. A static program has no loader, and is only looked at now and then.

Source: <link.h>; glibc's elf/dl-open.c, elf/dl-close.c; musl's ldso/dynlink.c.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from kprobes.engines.process.registry import Patch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.procfs import Mapping

_AT_NULL, _AT_PHDR, _AT_PHENT, _AT_PHNUM = 0, 3, 4, 5
_PT_DYNAMIC, _PT_PHDR = 2, 6
_DT_NULL, _DT_DEBUG = 0, 21
_HEADER = struct.Struct("<IIQQQQQQ")  # type, flags, offset, address, physical, file size, size, alignment
_DEBUG = struct.Struct("<i4xQQ")  # version, list of objects, r_brk
_MOST_HEADERS, _MOST_ENTRIES = 128, 1024
INT3 = b"\xcc"
# endbr64; push %rbp; mov %rsp, %rbp; pop %rbp; ret, of which only the last is always there: it does nothing but return.
_EMPTY = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?(?:\x55\x48\x89\xe5\x5d)?(?:\xf3)?\xc3", re.DOTALL)
_LONGEST = 16


def find_rendezvous(memory: ProcessMemory, auxiliary: bytes, mappings: Sequence[Mapping]) -> Patch | None:
    """Return the breakpoint for the loader's `r_brk`, or None where there is none, or it isn't an empty function.

    *auxiliary* are the bytes of /proc/PID/auxv. All else is read from the program, and is believed only where it leads
    to code of a file.
    """
    known = dict(struct.iter_unpack("<QQ", auxiliary[: len(auxiliary) & -16]))
    section = _dynamic_section(memory, known)
    pointer = next((value for tag, value in section if tag == _DT_DEBUG), 0)
    content = memory.read_some(pointer, _DEBUG.size) if pointer else b""
    if len(content) != _DEBUG.size:
        return None
    version, _, place = _DEBUG.unpack(content)
    if version < 1 or not any(one.start <= place < one.end and one.executable and one.inode for one in mappings):
        return None
    code = memory.read_some(place, _LONGEST)
    return Patch(place, code[:1], INT3, place) if _EMPTY.match(code) else None


def _dynamic_section(memory: ProcessMemory, known: dict[int, int]) -> list[tuple[int, int]]:
    """Return the (tag, value) pairs of the program's dynamic section, none for a static one."""
    at, count = known.get(_AT_PHDR, 0), known.get(_AT_PHNUM, 0)
    if known.get(_AT_PHENT) != _HEADER.size or not 0 < count <= _MOST_HEADERS:
        return []
    content = memory.read_some(at, count * _HEADER.size)
    headers = list(_HEADER.iter_unpack(content[: len(content) // _HEADER.size * _HEADER.size]))
    shift = next((at - header[3] for header in headers if header[0] == _PT_PHDR), 0)
    for kind, _, _, address, _, _, size, _ in headers:
        if kind == _PT_DYNAMIC:
            found = memory.read_some(address + shift & (1 << 64) - 1, min(size, 16 * _MOST_ENTRIES))
            return list(struct.iter_unpack("<QQ", found[: len(found) & -16]))
    return []
