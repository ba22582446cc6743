"""The code that counts: what a detour runs before the instructions it displaced, and the routines they share.

Counting must be exact with many threads and cost next to nothing, so every thread has a block of its own with plain
counters; a locked increment costs 6.5 ns and bounces between cores, a plain one is hidden behind the program's own
work. A thread is known by its thread pointer: a table of 512 entries maps it to the block. The table is private memory
that the kernel wipes in a forked child (MADV_WIPEONFORK), whose threads thus claim blocks of their own, while the
blocks are shared with the controller and outlive the process. A thread without a thread pointer, or one that finds no
block free, counts in the shared block 0 with a locked increment.

Three modes: `SELF` reads the thread pointer from fs:0, where the x86-64 TLS ABI puts a copy (0.3 ns; only where every
thread has one), `REGISTER` reads the register (2.7 ns; needs FSGSBASE), `SHARED` always uses the shared block.

The stubs' source is tests/golden/process/routines.s; a test assembles it and compares.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.model.layout import SITE_COUNTERS

if TYPE_CHECKING:
    from kprobes.engines.process.layout import SharedLayout

SELF = "fs:0"
REGISTER = "rdfsbase"
SHARED = "shared"

_ROUTINES = bytes.fromhex(
    "4d85db743b41f6c3017535505152b9100000004489dac1ea0881e2f01f00004c8b152a0200004901d2498b024c39d8741a48"
    "85c0742083c210ffc975dc5a59584c8b15190200004539d2c34d8b52085a59584885e4c3488b15fb0100008b051d02000048"
    "390273d541534983cb0131c0f04d0fb11a415b4489da755a488b15d5010000b801000000f0480fc1023b05ed010000733589"
    "c1480faf05c9010000480305ba010000488948404c89188b0dd101000085c97407418b0c0b894808498942084d891a4989c2"
    "eb8549c70201000000e967ffffffc1ea08e93bffffff6690644c8b1c2500000000eb0f0f1f440000f3490faec34d85db7446"
    "4589da41c1ea084181e2f01f00004c0315410100004d391a75234d8b5208498b42204885c0754e498962204c8957784c89d2"
    "49ff84f28000000031c0c3e8c4feffff75da66904c8b1519010000b9d007000031c0f0490fb1622074cff390ffc975f0488b"
    "050d0100004c01d0f048ff04f083c801c34889e14829c14881f90000100072a3488b05eb0000004c01d048ff04f083c801c3"
    "4c8b47284d85c00f848e0000004c8b4f304d8b9000100000488d460f4883e0f8498d49ff4c21d14d89cb4929cb4c39d87730"
    "4d8d1c024d2b184d39cb775d4901c24c8957384189b4080020000041c784080420000000000000498d840808200000c34c39"
    "c877344d01da52498d1402492b104c39ca5a77234183eb084181cb0000004045899c080020000041c7840804200000000000"
    "0031c9eb9748033d4600000048ff04d731c0c30f1f80000000004c8b4728488b473849898000100000c3"
)
_OFFSETS = {"find_block": 0, SELF: 0xE0, REGISTER: 0xF0, SHARED: 0x140, "reserve": 0x190, "submit": 0x240}
# Behind the routines: addresses of table, claim counter, block 0; stride; offsets in a block of the missed and lost
# counters; u32 number of blocks, u32 offset of the thread's id from its thread pointer.
_POOL = struct.Struct("<QQQQQQII")
_POOL_TABLE = len(_ROUTINES)
_POOL_FIRST = _POOL_TABLE + 16
ROUTINES_SIZE = len(_ROUTINES) + _POOL.size
LONGEST_COUNT = 160  # bytes that one counting adds to a detour, at most

_THREAD_POINTER = {SELF: bytes.fromhex("644c8b1c2500000000"), REGISTER: bytes.fromhex("f3490faec3")}
_HASH = bytes.fromhex("4589da41c1ea084181e2f01f00004c0315")  # mov, shr 8, and 0x1ff0; add r10, [rip + table]
_CHECK = bytes.fromhex("4d391a0f85")  # cmp [r10], r11; jne slow
_CHECK_ZERO = bytes.fromhex("4d85db0f84")  # test r11, r11; jz slow
_LOAD_BLOCK = bytes.fromhex("4d8b5208")  # mov r10, [r10 + 8]
_INCREMENT = bytes.fromhex("49ff82")  # inc qword [r10 + x]
_LOCKED_INCREMENT = bytes.fromhex("f049ff82")
_LOAD_SHARED = bytes.fromhex("4c8b15")  # mov r10, [rip + first]

_JE_OVER_JUMP = b"\x74\x05"

_SKIP_RED_ZONE = bytes.fromhex("488d642480")  # lea rsp, [rsp - 128]
_BACK_TO_RED_ZONE = bytes.fromhex("488da42480000000")
_SAVE_FLAGS = bytes.fromhex("509f0f90c0")  # push rax; lahf; seto al
_RESTORE_FLAGS = bytes.fromhex("047f9e58")  # add al, 127; sahf; pop rax
_PUSH_R10, _PUSH_R11 = b"\x41\x52", b"\x41\x53"
_POP_R10, _POP_R11 = b"\x41\x5a", b"\x41\x5b"

_i32 = struct.Struct("<i").pack


@dataclass(frozen=True, slots=True)
class Live:
    """What the probed code still needs at a site: the counting must keep it.

    *direction*: the direction flag may be set. *dead*: registers that a handler may lose.
    """

    r10: bool = True
    r11: bool = True
    flags: bool = True
    red_zone: bool = True
    direction: bool = True
    dead: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Counting:
    """How the sites of one code area count: the *mode*, and where the area's copy of the shared routine stands."""

    mode: str
    routine: int

    def begin(self, code: bytearray, at: int, counter: int, live: Live) -> Slow | None:
        """Append to *code*, which begins at address *at*, what adds one to byte *counter* of the thread's block.

        Return what `finish` needs to append the slow way once the detour is complete; None where there is none.
        """
        before, after = _save(live)
        code += before
        if self.mode == SHARED:
            pool = self.routine + _POOL_FIRST - (at + len(code) + 7)
            code += _LOAD_SHARED + _i32(pool) + _LOCKED_INCREMENT + _i32(counter) + after
            return None
        holes = []
        code += _THREAD_POINTER[self.mode]
        if self.mode == REGISTER:  # a thread without a pointer would match a free entry
            holes.append(len(code) + len(_CHECK_ZERO))
            code += _CHECK_ZERO + b"\0\0\0\0"
        code += _HASH
        code += _i32(self.routine + _POOL_TABLE - (at + len(code) + 4)) + _CHECK
        holes.append(len(code))
        code += b"\0\0\0\0" + _LOAD_BLOCK + _INCREMENT + _i32(counter) + after
        return Slow(tuple(holes), len(code) - len(after), counter)

    def finish(self, code: bytearray, at: int, begun_at: int, slow: Slow) -> None:
        """Append to *code*, which begins at address *at*, the slow way of what began at address *begun_at*.

        It calls the routine; the shared block is counted in with a lock prefix.
        """
        here = len(code)
        after = begun_at - at + slow.after
        for hole in slow.holes:
            struct.pack_into("<i", code, begun_at - at + hole, here - (begun_at - at + hole + 4))
        increment = after - len(_INCREMENT) - 4
        code += b"\xe8" + _i32(self.routine - (at + here + 5))
        code += _JE_OVER_JUMP + b"\xe9" + _i32(increment - (here + 12))
        code += _LOCKED_INCREMENT + _i32(slow.counter)
        code += b"\xe9" + _i32(after - (len(code) + 5))


@dataclass(frozen=True, slots=True)
class Slow:
    """Where counting code wants its slow way, counted from its begin: the jumps' holes, and where the fast way ends."""

    holes: tuple[int, ...]
    after: int
    counter: int


def _save(live: Live) -> tuple[bytes, bytes]:
    before = (
        (_SKIP_RED_ZONE if live.red_zone else b"")
        + (_SAVE_FLAGS if live.flags else b"")
        + (_PUSH_R10 if live.r10 else b"")
        + (_PUSH_R11 if live.r11 else b"")
    )
    after = (
        (_POP_R11 if live.r11 else b"")
        + (_POP_R10 if live.r10 else b"")
        + (_RESTORE_FLAGS if live.flags else b"")
        + (_BACK_TO_RED_ZONE if live.red_zone else b"")
    )
    return before, after


def routines(layout: SharedLayout, base: int, table: int, tid_offset: int) -> bytes:
    """Return the routines with their pool; they can stand anywhere.

    *base* is where the target maps the shared memory, *table* its owner table. *tid_offset* is where a thread keeps its
    id, counted from its thread pointer; 0 if that isn't known.
    """
    blocks = layout.seen_at(base)
    missed, lost = (layout.counter(0, SITE_COUNTERS.index(kind)) for kind in ("missed", "lost"))
    return _ROUTINES + _POOL.pack(
        table, blocks.claimed, blocks.first, blocks.stride, missed, lost, blocks.count, tid_offset
    )


def routine(at: int, name: str) -> int:
    """Return the address of a routine where the blob stands *at*: `find_block`, `reserve`, `submit`, or a mode: its
    `enter`."""
    return at + _OFFSETS[name]
