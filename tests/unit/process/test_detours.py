"""Where detours go, and what they may not do."""

from __future__ import annotations

import pytest

from kprobes.arch.x86_64.decode import decode
from kprobes.arch.x86_64.patch import Patch, Range, Tactic
from kprobes.engines.process.detours import CodeArea, Detours, merged_pages
from kprobes.engines.process.memory import Room
from kprobes.engines.process.settling import moves_call, settle
from kprobes.errors import UnsupportedError

CODE = 0x5555_0000_1000
ROOMS = [Room(0x5554_0000_0000, 0x5555_0000_0000), Room(0x5555_0100_0000, 0x5556_0000_0000)]


REACH = Range(0x5554_9000_0000, 0x5555_7000_0000)


def jump(code: bytes, *, pushed: bool = False, reach: Range = REACH) -> Patch:
    return Patch(Tactic.JUMP, tuple(decode(code, CODE)), (CODE,), reach, CODE, pushed=pushed)


@pytest.mark.parametrize(
    ("code", "pushed", "moves"),
    [
        (b"\x55\x48\x89\xe5\x90", False, False),
        (b"\x90\xe8\0\0\0\0", False, True),  # nop; call
        (b"\x90\xe8\0\0\0\0", True, False),
        (b"\xff\xd0\x90\x90\x90", False, True),  # call rax
    ],
)
def test_a_call_that_runs_elsewhere_without_a_call_in_its_place_is_seen(code: bytes, pushed: bool, moves: bool) -> None:
    assert moves_call(jump(code, pushed=pushed)) == moves


def test_wide_detours_share_an_area_and_a_narrow_one_lies_in_its_window() -> None:
    wide = [jump(b"\x55\x48\x89\xe5\x90") for _ in range(3)]
    window = Range(0x5555_0200_0010, 0x5555_0200_010F)
    narrow = jump(b"\x48\x89\xe5", reach=window)
    settled = settle([*wide, narrow], {CODE: [0]}, ROOMS)
    assert [len(jumps) for _, jumps in settled] == [3, 1]
    for area, _ in settled:
        assert any(room.start <= area.start and area.start + area.size <= room.end for room in ROOMS)
    assert window.low <= settled[1][0].start <= window.high


def test_without_room_in_reach_nothing_is_settled() -> None:
    with pytest.raises(UnsupportedError):
        settle([jump(b"\x55\x48\x89\xe5\x90")], {CODE: [0]}, [Room(0x1000_0000, 0x2000_0000)])


def test_pages_that_touch_are_mapped_as_one() -> None:
    areas = [CodeArea(0x10010, 0x20), CodeArea(0x10F00, 0x200), CodeArea(0x30000, 0x1000)]
    assert merged_pages(areas) == [(0x10000, 0x2000), (0x30000, 0x1000)]


def test_what_comes_later_is_added_in_place() -> None:
    first, more = Detours(), Detours(traps={1: 2}, moves={3: 4})
    traps = first.traps
    first.add(more)
    assert traps == {1: 2}
    assert first.moves == {3: 4}
