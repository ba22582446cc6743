"""Atomic operations on words of memory that handlers change meanwhile: a few bytes of machine code.

Python has none. What a handler adds with a locked instruction, or puts there by one plain store, is neither lost nor
seen twice by who takes it with an exchange.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from kprobes.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# u64 exchange(u64 *place, u64 value): mov rax, rsi; xchg [rdi], rax; ret
_EXCHANGE = bytes.fromhex("4889f0 488707 c3".replace(" ", ""))
# u64 compare_exchange(u64 *place, u64 old, u64 new), returns what was there: mov rax, rsi; lock cmpxchg [rdi], rdx; ret
_COMPARE_EXCHANGE = bytes.fromhex("4889f0f0480fb117c3")
# u64 add(u64 *place, u64 amount), returns what was there: mov rax, rsi; lock xadd [rdi], rax; ret
_ADD = bytes.fromhex("4889f0f0480fc107c3")
_EACH = 16


class Words:
    """The u64 words of *memory*, by their offsets; a context manager, in which the memory can't be closed.

    Raises:
        UnsupportedError: there is no such code for this machine, or none may run here.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        if os.uname().machine != "x86_64":
            raise UnsupportedError("taking what a map holds while handlers run is known for x86-64 only")
        try:
            self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        except OSError as error:
            raise UnsupportedError("no memory of this process may be executable, which taking a map needs") from error
        for number, code in enumerate((_EXCHANGE, _COMPARE_EXCHANGE, _ADD)):
            self._code[number * _EACH : number * _EACH + len(code)] = code
        self._own = ctypes.c_char.from_buffer(self._code)
        self._held = ctypes.c_char.from_buffer(memory)
        start, word = ctypes.addressof(self._own), ctypes.c_uint64
        self._base, self._size = ctypes.addressof(self._held), len(memory)
        self._exchange: Callable[..., int] = ctypes.CFUNCTYPE(word, word, word)(start)
        self._compare: Callable[..., int] = ctypes.CFUNCTYPE(word, word, word, word)(start + _EACH)
        self._add: Callable[..., int] = ctypes.CFUNCTYPE(word, word, word)(start + 2 * _EACH)

    def __enter__(self) -> Words:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the memory go; idempotent."""
        self._base = 0
        self._held = self._own = ctypes.c_char()

    def _at(self, offset: int) -> int:
        if not self._base or offset % 8 or not 0 <= offset <= self._size - 8:
            raise IndexError(f"there is no word at {offset}")
        return self._base + offset

    def exchange(self, offset: int, value: int) -> int:
        """Put *value* there; return what was there."""
        return self._exchange(self._at(offset), value)

    def compare_exchange(self, offset: int, old: int, new: int) -> bool:
        """Put *new* there if *old* is there; tell whether it was."""
        return self._compare(self._at(offset), old, new) == old

    def add(self, offset: int, amount: int) -> int:
        """Add *amount*; return what was there."""
        return self._add(self._at(offset), amount & (1 << 64) - 1)
