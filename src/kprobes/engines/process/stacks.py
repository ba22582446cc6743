"""Signal frames on the stacks of stopped threads: places where a thread will go on that no register shows.

When a signal interrupts a thread, the kernel puts the whole register state into a frame on the stack and starts the
handler; the thread goes on at the saved instruction pointer when the handler returns. Such a frame is found without
walking the stack: the word with the segment selectors, cs = 0x33 and ss = 0x2b with gs and fs zero between them, stands
two words behind the saved instruction pointer, and nothing else in a program looks like it except by intent.

Return addresses need no search: a patched region holds no call but at its end, so none leads into one.

Source: arch/x86/include/uapi/asm/sigcontext.h (`struct sigcontext_64`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.model.layout import align_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.procfs import Mapping

SEARCH_BYTES = 8 << 20  # of each stack, from its top
MAX_FRAMES = 1024
RED_ZONE = 128

_SELECTORS = struct.Struct("<HHHH").pack(0x33, 0, 0, 0x2B)
# In `struct sigcontext_64`: ... sp, ip, flags, selectors.
_IP_BEFORE_SELECTORS = 16
_SP_BEFORE_SELECTORS = 24


@dataclass(frozen=True, slots=True)
class SignalFrame:
    """A saved register state: the thread will go on at *ip* with *sp*; *place* is where that ip is stored."""

    place: int
    ip: int
    sp: int


def signal_frames(
    memory: ProcessMemory, mappings: Sequence[Mapping], stack_pointers: Iterable[int]
) -> Iterator[SignalFrame]:
    """Yield the signal frames above each of *stack_pointers*, also those on other stacks that a frame leads to."""
    seen: dict[int, int] = {}  # start of a mapping -> the lowest address of it that has been searched
    waiting = list(stack_pointers)
    found = 0
    while waiting and found < MAX_FRAMES:
        pointer = waiting.pop()
        mapping = _mapping_of(mappings, pointer)
        if mapping is None or seen.get(mapping.start, mapping.end) <= pointer:
            continue
        top = min(seen.get(mapping.start, mapping.end), pointer + SEARCH_BYTES)
        seen[mapping.start] = pointer
        for frame in _search(memory, pointer, top):
            found += 1
            waiting.append(frame.sp)
            yield frame


def _mapping_of(mappings: Sequence[Mapping], address: int) -> Mapping | None:
    for mapping in mappings:
        if mapping.start <= address < mapping.end:
            return mapping
    return None


def _search(memory: ProcessMemory, start: int, end: int) -> Iterator[SignalFrame]:
    base = align_up(start, 8)
    content = memory.read_some(base, end - base)
    place = content.find(_SELECTORS)
    while place >= 0:
        if place % 8 == 0 and place >= _SP_BEFORE_SELECTORS:
            sp, ip = struct.unpack_from("<QQ", content, place - _SP_BEFORE_SELECTORS)
            yield SignalFrame(base + place - _IP_BEFORE_SELECTORS, ip, sp)
        place = content.find(_SELECTORS, place + 1)
