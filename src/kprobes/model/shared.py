"""How native handlers and their controller lay out the memory that they share.

The compiler writes code that knows these offsets, the process engine maps the memory; neither imports the other.

- A *block* for each thread: header, then counters u64[kind][site] (see `SITE_COUNTERS`). It belongs to one handler at a
  time, so that plain additions will do.
- A *world* page: what a handler can't ask the kernel for without a system call.
- A *table* for each map with a key: header (u64 slots, a power of two; u64 slots in use), then slots, open addressing:
  u32 state, u32 hash of the key, key, value; in an `lru` map u64 time stamp of the last use behind it.
- A *queue*: positions of the oldest value and of the next one, then slots, a power of two: u64 turn, value. The slot of
  position p is free for it when its turn is twice the number of rounds before p, and filled when that is one more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.frozen import dataclass
from kprobes.model.layout import MapLayout, align_up

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.model.plan import NativeProgram

PAGE = 4096

# A block's header.
BLOCK_TID = 8  # u32, 0 where unknown
BLOCK_PID = 12  # u32, 0 where unknown
BLOCK_COMM = 16  # 16 bytes, empty where unknown
BLOCK_NUMBER = 64  # u64
BLOCK_SELF = 72  # u32 the thread's id as its own system calls see it, 0 where not asked yet
BLOCK_RANDOM = 80  # u64 state of the generator
HITS = 128
MAX_BLOCKS = 256

# Shares of a map without key: one for each block; those of a few bytes are a cache line apart.
SHARE_LINE = 64
COUNT_SHARES = 8 * MAX_BLOCKS
HISTOGRAM_SHARES = MAX_BLOCKS

# The world page.
CLOCK = 0  # u64 offset of the current clock slot in this page
WORLD_PID = 8  # u32
WORLD_UID = 12  # u32
WORLD_GID = 16  # u32
WORLD_MAY_CALL = 20  # u32, 1 where a handler may make system calls: no seccomp filter is in force
WORLD_COMM = 24  # 16 bytes
WORLD_RANGES = 40  # u64 number of ranges
CLOCK_SLOTS = (64, 96, 128, 160)  # each u64 ticks, u64 nanoseconds, u64 nanoseconds per 2**32 ticks
RANGES = 256  # (u64 start, u64 end) of memory that stays mapped for as long as the process runs
MAX_RANGES = 128

# The unwind region: a header (u64 number of objects), the objects, then working memory for each block, then rows (see
# `symbols.unwind`), by file offset. An object: u64 start and end of its code, u64 address minus file offset, u64 where
# its rows begin in the region, u64 their number.
UNWIND_OBJECTS = 64
UNWIND_OBJECT = 48
MAX_UNWIND_OBJECTS = 64
UNWIND_SCRATCH = PAGE
SCRATCH_SIZE = 2 * PAGE  # a page of the stack, then the addresses
UNWIND_ROWS = UNWIND_SCRATCH + MAX_BLOCKS * SCRATCH_SIZE
STACK_DEPTH = 127
UNWIND_STOP, UNWIND_SIGNAL, UNWIND_UNKNOWN = 0xFFFF, 0xFFFE, 0xFFFD

TABLE_HEADER = 64
TABLE_USED = 8
SLOT_HASH = 4
SLOT_KEY = 8
QUEUE_HEAD, QUEUE_TAIL, QUEUE_SLOTS = 0, 64, 128
SLOT_FREE, SLOT_CLAIMED, SLOT_FULL, SLOT_DELETED = 0, 1, 2, 3


def world_layout() -> MapLayout:
    """Return the layout of the world page."""
    return MapLayout("world", "world", 4, PAGE, 1)


def counter_offset(sites: int, site: int, kind: int) -> int:
    """Return the offset in a block of counter number *kind* of *site*, one of *sites*."""
    return HITS + 8 * (kind * sites + site)


def counted_sites(sites: int, programs: Iterable[NativeProgram]) -> int:
    """Return for how many sites a block has counters: twice *sites* where there are `return` parts.

    Such a part runs as site number + *sites*, since its call has been counted at the entry.
    """
    return 2 * sites if any(program.part == "return" for program in programs) else sites


@dataclass(frozen=True, slots=True)
class Table:
    """The shape of a map with a key: *capacity* slots, a power of two; sizes are multiples of 8. *stamped*: the time
    of the last use stands behind the value."""

    key_size: int
    value_size: int
    capacity: int
    stamped: bool = False

    @property
    def value_at(self) -> int:
        """Return the offset of the value in a slot."""
        return SLOT_KEY + self.key_size

    @property
    def stride(self) -> int:
        """Return the bytes from one slot to the next."""
        return self.stamp_at + 8 * self.stamped

    @property
    def stamp_at(self) -> int:
        """Return where in a slot the time of the last use stands, if it does."""
        return self.value_at + self.value_size


def table_of(layout: MapLayout) -> Table:
    """Return the shape of the map *layout*; at least half of its slots stay free."""
    capacity = 1 << max(2 * layout.max_entries - 1, 1).bit_length()
    key_size, value_size = align_up(layout.key_size, 8), align_up(layout.value_size, 8)
    return Table(key_size, value_size, capacity, layout.kind == "lru")


@dataclass(frozen=True, slots=True)
class QueueShape:
    """The shape of a queue: 2**bits slots of *stride* bytes."""

    stride: int
    bits: int

    @property
    def mask(self) -> int:
        """Return what of a position is the number of its slot."""
        return (1 << self.bits) - 1

    @property
    def size(self) -> int:
        """Return the bytes of the whole."""
        return QUEUE_SLOTS + self.stride * (self.mask + 1)


def queue_of(layout: MapLayout) -> QueueShape:
    """Return the shape of the queue *layout*."""
    return QueueShape(8 + align_up(layout.value_size, 8), (layout.max_entries - 1).bit_length())
