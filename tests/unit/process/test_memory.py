"""Finding room near code, without getting in the way of what grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.process.memory import (
    HIGHEST,
    LOWEST,
    PAGE,
    REACH,
    STACK_ROOM,
    Room,
    find_room,
    free_rooms,
    reach_of,
)
from kprobes.engines.process.procfs import Mapping
from kprobes.errors import UnsafeSiteError


def mapping(start: int, end: int, path: str = "") -> Mapping:
    return Mapping(start, end, "r-xp", 0, "00:00", 0, path)


def test_room_is_taken_below_rather_than_in_what_the_heap_grows_into() -> None:
    maps = [
        mapping(0x5555_0000_0000, 0x5555_0010_0000, "/bin/x"),
        mapping(0x5555_0020_0000, 0x5555_0030_0000, "[heap]"),
    ]
    found = find_room(free_rooms(maps), reach_of(0x5555_0000_0000, 0x5555_0010_0000), 0x200000)
    assert found is not None
    assert found + 0x200000 <= 0x5555_0000_0000


def test_nothing_is_placed_where_a_stack_may_grow() -> None:
    stack = mapping(0x7FFF_0000_0000, 0x7FFF_0002_1000, "[stack]")
    rooms = free_rooms([stack])
    assert all(not room.start < stack.start - PAGE < room.end for room in rooms)
    assert rooms[0].end == stack.start - STACK_ROOM


def test_a_program_at_the_bottom_of_memory_finds_room_above_the_lowest_address() -> None:
    found = find_room(free_rooms([mapping(0x400000, 0x500000)]), reach_of(0x400000, 0x500000), 0x1000)
    assert found is not None
    assert found >= LOWEST


def test_no_room_in_reach_is_none() -> None:
    full = [mapping(LOWEST, 0x7000_0000_0000)]
    assert find_room(free_rooms(full), reach_of(0x4000_0000_0000, 0x4000_0000_1000), PAGE) is None


def test_code_beyond_any_jump_is_refused() -> None:
    with pytest.raises(UnsafeSiteError, match="larger than a jump"):
        reach_of(0x4000_0000_0000, 0x4000_0000_0000 + 3 * REACH)


@given(
    st.lists(st.tuples(st.integers(16, 1 << 34), st.integers(1, 1 << 20)), max_size=8),
    st.integers(16, 1 << 34),
    st.integers(1, 64),
)
def test_what_is_found_is_free_whole_pages_and_in_reach(taken: list[tuple[int, int]], code: int, pages: int) -> None:
    maps, floor = [], 0
    for start, size in sorted(taken):
        if start >= floor and (start + size) * PAGE < HIGHEST:
            maps.append(mapping(start * PAGE, (start + size) * PAGE))
            floor = start + size
    reach = reach_of(code * PAGE, code * PAGE + PAGE)
    found = find_room(free_rooms(maps), reach, pages * PAGE)
    if found is not None:
        assert found % PAGE == 0
        assert reach.start <= found
        assert found + pages * PAGE <= reach.end
        assert all(found + pages * PAGE <= one.start or one.end <= found for one in maps)


def test_rooms_between_mappings_are_what_is_left() -> None:
    maps = [mapping(0x100000, 0x200000), mapping(0x300000, 0x400000)]
    assert free_rooms(maps) == [Room(LOWEST, 0x100000), Room(0x200000, 0x300000), Room(0x400000, HIGHEST)]
