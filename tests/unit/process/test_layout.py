"""The shared memory's parts do not overlap, and keyed maps come back."""

from __future__ import annotations

import mmap
import struct

from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.process.layout import (
    PAGE,
    SLOT_DELETED,
    SLOT_FULL,
    TABLE_HEADER,
    SharedLayout,
    layout_for,
    region_size,
    slot_size,
    slots_of,
)
from kprobes.engines.process.tables import read_region
from kprobes.model.layout import MapLayout
from kprobes.model.plan import NativeProgram, Plan, Site


@given(
    st.integers(0, 6000),
    st.integers(0, 6000),
    st.integers(1, 256),
    st.lists(st.integers(1, 9), max_size=4),
    st.sampled_from([0, 1 << 16]),
)
def test_parts_follow_each_other_on_pages(sites: int, entries: int, blocks: int, regions: list[int], ring: int) -> None:
    layout = SharedLayout(sites, entries, blocks, tuple(PAGE * one for one in regions), ring)
    places = [layout.journal_at, layout.blocks_at, layout.maps_at, layout.rings_at, layout.size]
    assert places == sorted(places)
    assert all(place % PAGE == 0 for place in places)
    assert layout.counter(sites, 3) <= layout.stride
    assert len(layout.ring_places) == layout.rings
    ends = [layout.rings_at]
    for start, size in layout.ring_places:
        assert start == ends[-1]
        assert size in (ring, 4 * ring)
        ends.append(start + 2 * PAGE + size)
    assert layout.size == ends[-1]


def test_rings_are_there_only_for_plans_with_handlers_and_events() -> None:
    site = Site(0, "f")
    ring = MapLayout("events", "ring", 0, 0, 100_000)
    program = NativeProgram("h", b"\xc3")
    plain = Plan((), (site,), (ring,), (), (), ())
    handled = Plan((), (site,), (ring,), (), (), (), natives=(program,))
    assert layout_for(plain, 1).rings == 0
    assert layout_for(handled, 1).rings == layout_for(handled, 1).blocks
    assert layout_for(handled, 1).ring_size == 1 << 17


def test_full_slots_are_read_and_others_are_not() -> None:
    layout = MapLayout("m", "hash", 12, 8, 4)
    size = region_size(layout)
    view = mmap.mmap(-1, size)
    for slot, state in ((0, SLOT_FULL), (3, SLOT_DELETED), (slots_of(layout) - 1, SLOT_FULL)):
        place = TABLE_HEADER + slot * slot_size(layout)
        struct.pack_into("<II12s4xQ", view, place, state, 0, b"key-%d" % slot, slot)
    found = read_region(view, 0, layout)
    assert found == [
        (b"key-0".ljust(12, b"\0"), struct.pack("<Q", 0)),
        (b"key-7".ljust(12, b"\0"), struct.pack("<Q", 7)),
    ]


def test_a_map_without_keys_is_one_value() -> None:
    view = mmap.mmap(-1, PAGE)
    view[:16] = bytes(range(16))
    assert read_region(view, 0, MapLayout("c", "count", 4, 16, 1)) == [(b"", bytes(range(16)))]
