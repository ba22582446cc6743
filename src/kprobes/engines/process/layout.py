"""How the memory that target and controller share is laid out: one sealed memfd.

    registry    one page: who probes whom, where everything is (see `registry.py`)
    journal     what was patched: 64 bytes an entry, so that anyone can undo it later
    blocks      one for each thread: header, then u64 counters [kind][site]; block 0 is shared by those without one
    rings       event rings, one for each of the first blocks (see `ring.py`)

All offsets are multiples of a page, all integers little-endian. The target can scribble over every byte of it: the
controller takes the layout from its own memory, never from the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from kprobes.model.layout import SITE_COUNTERS, align_up

PAGE = 4096
MAX_BLOCKS = 256
MAX_RINGS = 64

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
BLOCK_RING = 40  # u64 address of its ring's control page in the target, 0 for none
HITS = 128

CLAIM_COUNTER = 2048  # in the registry page: u64 number of blocks given out


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where the target sees the blocks: addresses in its memory, sizes in bytes."""

    claimed: int
    first: int
    stride: int
    count: int


@dataclass(frozen=True, slots=True)
class SharedLayout:
    """Offsets in the memfd for *sites* sites; *ring_size* is the data of each of *rings* rings (0: no events)."""

    sites: int
    journal_entries: int
    blocks: int = MAX_BLOCKS
    rings: int = 0
    ring_size: int = 0

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
    def rings_at(self) -> int:
        """Return the offset of ring 0."""
        return self.blocks_at + self.blocks * self.stride

    @property
    def ring_stride(self) -> int:
        """Return the bytes from one ring to the next: consumer page, producer page, data."""
        return 2 * PAGE + self.ring_size

    @property
    def size(self) -> int:
        """Return the size of the memfd."""
        return self.rings_at + self.rings * self.ring_stride

    def counter(self, site: int, kind: int = 0) -> int:
        """Return the offset in a block of a counter of *site*; *kind* is its place in SITE_COUNTERS."""
        return HITS + 8 * (kind * self.sites + site)

    def seen_at(self, base: int) -> Blocks:
        """Return the blocks as addresses in a process that maps the memfd at *base*."""
        return Blocks(base + CLAIM_COUNTER, base + self.blocks_at, self.stride, self.blocks)
