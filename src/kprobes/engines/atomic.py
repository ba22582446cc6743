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

# u64 exchange(u64 *place, u64 value); u64 compare_exchange(u64 *place, u64 old, u64 new); u64 add(u64 *place, u64
# amount): each returns what was there.
_CODE = {
    "x86_64": (
        "4889f0 488707 c3",  # mov rax, rsi; xchg [rdi], rax; ret
        "4889f0 f0480fb117 c3",  # mov rax, rsi; lock cmpxchg [rdi], rdx; ret
        "4889f0 f0480fc107 c3",  # mov rax, rsi; lock xadd [rdi], rax; ret
    ),
    # A load that watches the word, and a store that fails where another came between: then once more.
    "aarch64": (
        # mov x8, x0; 1: ldaxr x0, [x8]; stlxr w9, x1, [x8]; cbnz w9, 1b; ret
        "e80300aa 00fd5fc8 01fd09c8 c9ffff35 c0035fd6",
        # mov x8, x0; 1: ldaxr x0, [x8]; cmp x0, x1; b.ne 2f; stlxr w9, x2, [x8]; cbnz w9, 1b; ret; 2: clrex; ret
        "e80300aa 00fd5fc8 1f0001eb 81000054 02fd09c8 89ffff35 c0035fd6 5f3f03d5 c0035fd6",
        # mov x8, x0; 1: ldaxr x0, [x8]; add x9, x0, x1; stlxr w10, x9, [x8]; cbnz w10, 1b; ret
        "e80300aa 00fd5fc8 0900018b 09fd0ac8 aaffff35 c0035fd6",
    ),
}
_EACH = 64


class Words:
    """The u64 words of *memory*, by their offsets; a context manager, in which the memory can't be closed.

    Raises:
        UnsupportedError: there is no such code for this machine, or none may run here.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        codes = _CODE.get(os.uname().machine)
        if codes is None:
            raise UnsupportedError("taking what a map holds while handlers run is known for x86-64 and arm64 only")
        self._code = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for number, code in enumerate(codes):
            content = bytes.fromhex(code)
            self._code[number * _EACH : number * _EACH + len(content)] = content
        self._own = ctypes.c_char.from_buffer(self._code)
        # Executable only once it is written: then the kernel sees to it that arm64 fetches what was stored.
        where = ctypes.c_void_p(ctypes.addressof(self._own))
        if ctypes.CDLL(None).mprotect(where, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_EXEC):
            raise UnsupportedError("no memory of this process may be executable, which taking a map needs")
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
