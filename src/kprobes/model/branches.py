"""Where the direct branches in a file's code go, for whoever finds the same code in memory.

u64 file offset of the code, u64 its bytes, u64 crc32 of them, then the targets within it, u32 each, counted from its
begin.
"""

from __future__ import annotations

import struct
from array import array
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_HEADER = struct.Struct("<QQQ")


def pack_branches(code: bytes, offset: int, targets: Iterable[int]) -> bytes:
    """Return *targets*, file offsets, of the *code* that stands at file offset *offset*."""
    inside = array("I", sorted({target - offset for target in targets if offset <= target < offset + len(code)}))
    return _HEADER.pack(offset, len(code), crc32(code)) + inside.tobytes()


def unpack_branches(packed: bytes, code: bytes, offset: int, base: int) -> set[int] | None:
    """Return the targets as addresses, where *code*, which is mapped from *offset* of the file, stands at *base*; None
    where it isn't the code that was looked at."""
    if len(packed) < _HEADER.size or len(packed) % 4:
        return None
    if _HEADER.unpack_from(packed) != (offset, len(code), crc32(code)):
        return None
    return set(map(base.__add__, array("I", packed[_HEADER.size :])))
