"""How the memory that target and controller share is laid out: one sealed memfd.

    registry    one page: who probes whom, where everything is (see `registry.py`)
    journal     what was patched: 64 bytes an entry, so that anyone can undo it later
    blocks      one for each thread: header, then u64 counters [kind][site]; block 0 is shared by those without one
    maps        what handlers keep, one region a map (see `regions`)
    rings       event rings, one for each block (see `ring.py`)
    listing     what is armed, for who looks from outside (see `listing.py`)

All offsets are multiples of a page, all integers little-endian. The target can scribble over every byte of it: the
controller takes the layout from its own memory, never from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.model.layout import SITE_COUNTERS, align_up
from kprobes.model.shared import counted_sites, queue_of, table_of

if TYPE_CHECKING:
    from kprobes.model.layout import MapLayout
    from kprobes.model.plan import Plan

PAGE = 4096
MAX_BLOCKS = 256
MAX_RINGS = 32
# The first threads that come get more room: 16 MiB hold 25 ms of ten million events a second.
WIDE_RINGS = range(1, 5)
WIDER = 4
MIN_RING, MAX_RING = 1 << 16, 1 << 23
LISTED_SITE = 512  # bytes that the listing has for each site; pages that aren't written cost nothing

# The owner table: private to a process, wiped in a forked child.
OWNER_ENTRIES = 512
OWNER_SIZE = 16
OWNER_TABLE_SIZE = OWNER_ENTRIES * OWNER_SIZE

JOURNAL_ENTRY = 64
REGISTRY_SIZE = PAGE

# A block's header.
BLOCK_OWNER = 0  # u64 thread pointer
BLOCK_TID = 8  # u32, 0 where unknown
BLOCK_PID = 12  # u32
BLOCK_COMM = 16  # 16 bytes
BLOCK_GUARD = 32  # u64 stack pointer of the handler that runs, 0 for none
BLOCK_RING = 40  # u64 address of its ring in the target, 0 for none
BLOCK_RING_SIZE = 48  # u64 bytes of its data, a power of two
BLOCK_PENDING = 56  # u64 the producer's position after the record that is being written
BLOCK_NUMBER = 64  # u64
HITS = 128

CLAIM_COUNTER = 2048  # in the registry page: u64 number of blocks given out


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where the target sees the blocks: addresses in its memory, sizes in bytes."""

    claimed: int
    first: int
    stride: int
    count: int


# A keyed map: a header of 64 bytes (u64 slots, a power of two; u64 slots in use), then the slots, open addressing:
# u32 state, u32 hash of the key, the key and the value, each filled up to a multiple of 8.
TABLE_HEADER = 64
SLOT_HEADER = 8
SLOT_FREE, SLOT_CLAIMED, SLOT_FULL, SLOT_DELETED = 0, 1, 2, 3
_UNMAPPED = frozenset({"stats", "ring", "stacks", "frames"})


def slot_size(layout: MapLayout) -> int:
    """Return the bytes of one slot of a keyed map."""
    return table_of(layout).stride


def slots_of(layout: MapLayout) -> int:
    """Return the number of slots of a keyed map: at least half of them stay free."""
    return table_of(layout).capacity


def region_size(layout: MapLayout) -> int:
    """Return the bytes that a map takes in the shared memory, whole pages; 0 for kinds that live elsewhere."""
    if layout.kind in _UNMAPPED:
        return 0
    if is_keyed(layout):
        return align_up(TABLE_HEADER + slots_of(layout) * slot_size(layout), PAGE)
    if layout.kind == "queue":
        return align_up(queue_of(layout).size, PAGE)
    if layout.kind == "array":
        return align_up(layout.value_size * layout.max_entries, PAGE)
    return align_up(max(layout.value_size, len(layout.initial), 1), PAGE)


def is_keyed(layout: MapLayout) -> bool:
    """Tell whether a map is a table of slots rather than one value."""
    return layout.kind in {"hash", "calls", "traces"} or bool(layout.key)


@dataclass(frozen=True, slots=True)
class SharedLayout:
    """Offsets in the memfd for *sites* sites; *regions* are the sizes of the maps' regions, in the plan's order.

    *ring_size* is the data of a ring, a power of two; those of `WIDE_RINGS` have `WIDER` times as much. There are as
    many rings as blocks, or none where it is 0.
    *private* bytes belong to the process alone and are mapped behind its owner table. *listing_size*: of the listing.
    """

    sites: int
    journal_entries: int
    blocks: int = MAX_BLOCKS
    regions: tuple[int, ...] = ()
    ring_size: int = 0
    private: int = 0
    listing_size: int = 0

    @property
    def table_size(self) -> int:
        """Return the bytes of the memory that a forked child finds empty."""
        return align_up(OWNER_TABLE_SIZE + self.private, PAGE)

    @property
    def journal_at(self) -> int:
        """Return the offset of the journal."""
        return REGISTRY_SIZE

    @property
    def blocks_at(self) -> int:
        """Return the offset of block 0."""
        return self.journal_at + align_up(self.journal_entries * JOURNAL_ENTRY, PAGE)

    @property
    def stride(self) -> int:
        """Return the bytes from one block to the next."""
        return align_up(HITS + 8 * len(SITE_COUNTERS) * self.sites, PAGE)

    @property
    def maps_at(self) -> int:
        """Return the offset of the first map's region."""
        return self.blocks_at + self.blocks * self.stride

    @property
    def rings_at(self) -> int:
        """Return the offset of ring 0."""
        return self.maps_at + sum(self.regions)

    @property
    def rings(self) -> int:
        """Return the number of rings."""
        return self.blocks if self.ring_size else 0

    @property
    def ring_places(self) -> tuple[tuple[int, int], ...]:
        """Return (offset, size of the data) of each ring: consumer page, producer page, data."""
        places, at = [], self.rings_at
        for number in range(self.rings):
            size = self.ring_size * (WIDER if number in WIDE_RINGS else 1)
            places.append((at, size))
            at += 2 * PAGE + size
        return tuple(places)

    @property
    def size(self) -> int:
        """Return the size of the memfd."""
        return self.listing_at + self.listing_size

    @property
    def listing_at(self) -> int:
        """Return the offset of the listing."""
        places = self.ring_places
        return sum(places[-1], 2 * PAGE) if places else self.rings_at

    def region_at(self, number: int) -> int:
        """Return the offset of the region of map *number*."""
        return self.maps_at + sum(self.regions[:number])

    def counter(self, site: int, kind: int = 0) -> int:
        """Return the offset in a block of a counter of *site*; *kind* is its place in SITE_COUNTERS."""
        return HITS + 8 * (kind * self.sites + site)

    def seen_at(self, base: int) -> Blocks:
        """Return the blocks as addresses in a process that maps the memfd at *base*."""
        return Blocks(base + CLAIM_COUNTER, base + self.blocks_at, self.stride, self.blocks)


def layout_for(plan: Plan, journal_entries: int) -> SharedLayout:
    """Return the layout for *plan*: rings only if it has events, and then as many blocks as rings can be had."""
    regions = tuple(region_size(one) for one in plan.maps)
    sites = counted_sites(len(plan.sites), plan.natives)
    private = sum(align_up(one.value_size, 8) for one in plan.maps if one.kind == "frames")
    asked = max((one.max_entries for one in plan.maps if one.kind == "ring"), default=0)
    listing = align_up(LISTED_SITE * (len(plan.sites) + 1), PAGE)
    if not asked or not plan.natives:
        return SharedLayout(sites, journal_entries, MAX_BLOCKS, regions, private=private, listing_size=listing)
    size = min(max(1 << (asked - 1).bit_length(), MIN_RING), MAX_RING)
    return SharedLayout(sites, journal_entries, MAX_RINGS, regions, size, private, listing)
