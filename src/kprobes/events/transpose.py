"""Runs of records become columns by machine code, where this machine is one that it is made for.

Records may lie in memory that somebody else writes to: each byte is read once, at a place that doesn't depend on what
is read.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Machine:
    """The functions of `arch.x86_64.transpose` in memory of this process; places are addresses.

    Raises:
        OSError: no memory may be executable here.
    """

    def __init__(self) -> None:
        from kprobes.arch.x86_64 import transpose

        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(transpose.CODE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        word, half = ctypes.c_uint64, ctypes.c_uint32
        self._uniform: Callable[..., int] = ctypes.CFUNCTYPE(word, word, word, word, half, half)(
            start + transpose.UNIFORM
        )
        self._transpose: Callable[..., None] = ctypes.CFUNCTYPE(None, word, word, word, word, word)(
            start + transpose.TRANSPOSE
        )

    def uniform(self, at: int, stride: int, count: int, head: tuple[int, int]) -> int:
        """Return how many of *count* records from *at* on, one every *stride* bytes, have the first and the third word
        of *head*, up to the first that hasn't."""
        return self._uniform(at, stride, count, *head)

    def transpose(self, columns: bytearray, at: int, stride: int, count: int) -> None:
        """Fill *columns* (see `arch.x86_64.transpose.COLUMN`) from *count* records, and move on what they hold."""
        start = ctypes.addressof(ctypes.c_char.from_buffer(columns))
        self._transpose(start, start + len(columns), at, stride, count)


@cache
def machine() -> Machine | None:
    """Return the machine code of this process; None where there is none for this machine, or none may run."""
    if platform.machine() != "x86_64":
        return None
    try:
        return Machine()
    except OSError:
        return None
