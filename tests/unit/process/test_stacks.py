"""Signal frames are found on real stacks' bytes, and only they."""

from __future__ import annotations

import struct

from kprobes.engines.process.procfs import Mapping
from kprobes.engines.process.stacks import signal_frames

SELECTORS = struct.pack("<HHHH", 0x33, 0, 0, 0x2B)


class Memory:
    """Bytes at addresses, as `ProcessMemory` reads them."""

    def __init__(self, pieces: dict[int, bytes]) -> None:
        self.pieces = pieces

    def read_some(self, address: int, size: int) -> bytes:
        for start, content in self.pieces.items():
            if start <= address < start + len(content):
                return content[address - start : address - start + size]
        return b""


def frame(ip: int, sp: int) -> bytes:
    return struct.pack("<QQQ", sp, ip, 0x246) + SELECTORS


def stack(start: int, size: int) -> Mapping:
    return Mapping(start, start + size, "rw-p", 0, "00:00", 0, "")


def test_a_frame_on_the_alternate_stack_leads_to_one_on_the_main_stack() -> None:
    main = b"\0" * 0x100 + frame(0x401000, 0x20800) + b"\0" * 0x600
    alternate = b"\0" * 0x40 + frame(0x402000, 0x20080) + b"\0" * 0x200
    memory = Memory({0x20000: main, 0x50000: alternate})
    maps = [stack(0x20000, len(main)), stack(0x50000, len(alternate))]
    found = list(signal_frames(memory, maps, [0x50010]))  # type: ignore[arg-type]
    assert [(one.ip, one.sp) for one in found] == [(0x402000, 0x20080), (0x401000, 0x20800)]
    assert memory.read_some(found[0].place, 8) == struct.pack("<Q", 0x402000)


def test_what_lies_below_the_stack_pointer_or_unaligned_is_no_frame() -> None:
    content = frame(0x401000, 0) + b"\0" * 3 + frame(0x402000, 0) + b"\0" * 100
    memory = Memory({0x20000: content})
    maps = [stack(0x20000, len(content))]
    assert list(signal_frames(memory, maps, [0x20020])) == []  # type: ignore[arg-type]


def test_each_stack_is_searched_once_though_many_threads_point_into_it() -> None:
    content = b"\0" * 64 + frame(0x401000, 0) + b"\0" * 64
    memory = Memory({0x20000: content})
    maps = [stack(0x20000, len(content))]
    pointers = [0x20000, 0x20010, 0x20000, 0x20020]
    assert len(list(signal_frames(memory, maps, pointers))) == 1  # type: ignore[arg-type]
