"""What the shared memory says about itself: who probes whom, which memory is ours, which bytes were changed.

It is written before the first byte of the target changes, so that whoever finds it can undo everything, also after
the controller was killed. Whoever reads it back from a target treats it as hostile: every number is bounded, and an
entry is used only where the target's code still holds what the entry says was written there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.process.layout import JOURNAL_ENTRY, PAGE, REGISTRY_SIZE
from kprobes.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.procfs import Mapping

NAME = "kprobes"
MAPPED_AS = f"/memfd:{NAME} (deleted)"

MAGIC = b"kprobes\0"
VERSION = 2
MAX_ENTRIES = 1 << 20
MAX_AREAS = 64
LONGEST_PATCH = 16
AREA_ENTRY = 0xFF  # instead of a length: the entry is an area, its head the size
COUNTER_ENTRY = 0xFE  # instead of a length: the entry is a counter
COUNTER_DOWN, COUNTER_UP = b"\0\0", b"\1\0"
MAX_AREA_SIZE = 1 << 30
MAX_SHARED = 1 << 40

# magic, version, number of areas, owner pid, target pid, owner start time, target start time, journal offset, entries,
# listing offset, listing size
_HEADER = struct.Struct("<8sIIIIQQQQQQ")
_AREA = struct.Struct("<QQ")
_ENTRY = struct.Struct(f"<QQB7x{LONGEST_PATCH}s{LONGEST_PATCH}s")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for ever: its id and when it started (clock ticks since boot)."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes of the target: *written* stands at *address* in place of *original*; both are of one length.

    *head*: where the program would be in its own code when it comes to *address*. It is *address* itself, but for the
    second hop of a two-hop jump, whose place has nothing to do with the site's.

    *counts*: at *address* is no code but a 16-bit counter that is one more as long as the code at *head* is patched.
    """

    address: int
    original: bytes
    written: bytes
    head: int
    counts: bool = False

    @classmethod
    def counter(cls, address: int, head: int) -> Patch:
        """Return the one that counts up at *address*."""
        return cls(address, COUNTER_DOWN, COUNTER_UP, head, counts=True)

    @property
    def end(self) -> int:
        """Return the address behind it."""
        return self.address + len(self.original)


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry: *areas* are (start, size) of memory that is ours in the target, besides the shared memory."""

    owner: Identity
    target: Identity
    areas: tuple[tuple[int, int], ...]
    journal_at: int
    entries: int
    listing_at: int = 0
    listing_size: int = 0


def format_registry(registry: Registry) -> bytes:
    """Return the registry page up to its last used byte."""
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        len(registry.areas),
        registry.owner.pid,
        registry.target.pid,
        registry.owner.start_time,
        registry.target.start_time,
        registry.journal_at,
        registry.entries,
        registry.listing_at,
        registry.listing_size,
    )
    return head + b"".join(_AREA.pack(*area) for area in registry.areas)


def parse_registry(page: bytes) -> Registry:
    """Return what the registry page says.

    Raises:
        FormatError: it isn't one, or it holds a number that can't be.
    """
    if len(page) < REGISTRY_SIZE or page[: len(MAGIC)] != MAGIC:
        raise FormatError("no registry of kprobes")
    _, version, areas, owner, target, owner_start, target_start, *places = _HEADER.unpack_from(page)
    journal_at, entries, listing_at, listing_size = places
    if version != VERSION:
        raise FormatError(f"the registry is of version {version}, this is version {VERSION}")
    if (
        areas > MAX_AREAS
        or entries > MAX_ENTRIES
        or journal_at % PAGE
        or max(journal_at, listing_at, listing_size) > MAX_SHARED
    ):
        raise FormatError("the registry was overwritten")
    found = []
    for index in range(areas):
        start, size = _AREA.unpack_from(page, _HEADER.size + index * _AREA.size)
        if start % PAGE or size % PAGE or not 0 < size <= MAX_AREA_SIZE:
            raise FormatError("the registry was overwritten")
        found.append((start, size))
    return Registry(Identity(owner, owner_start), Identity(target, target_start), tuple(found), *places)


def format_journal(patches: Sequence[Patch], areas: Sequence[tuple[int, int]] = ()) -> bytes:
    """Return the journal of *patches*, and of the *areas* that the registry has no room for: (start, size) each."""
    parts = [_ENTRY.pack(start, size, AREA_ENTRY, b"", b"").ljust(JOURNAL_ENTRY, b"\0") for start, size in areas]
    for patch in sorted(patches, key=lambda one: one.counts):  # code first: it tells whether the patches are in place
        length = COUNTER_ENTRY if patch.counts else len(patch.original)
        entry = _ENTRY.pack(patch.address, patch.head, length, patch.original, patch.written)
        parts.append(entry.ljust(JOURNAL_ENTRY, b"\0"))
    return b"".join(parts)


def parse_journal(content: bytes) -> tuple[list[Patch], list[tuple[int, int]]]:
    """Return the patches and areas in a journal; entries that can't be are left out."""
    found = []
    areas = []
    for place in range(0, len(content) - JOURNAL_ENTRY + 1, JOURNAL_ENTRY):
        address, head, length, original, written = _ENTRY.unpack_from(content, place)
        if 0 < length <= LONGEST_PATCH and 0 < address < 1 << 47 and 0 < head < 1 << 47:
            found.append(Patch(address, original[:length], written[:length], head))
        elif length == COUNTER_ENTRY and 0 < address < 1 << 47 and 0 < head < 1 << 47:
            found.append(Patch.counter(address, head))
        elif length == AREA_ENTRY and not address % PAGE and not head % PAGE and 0 < head <= MAX_AREA_SIZE:
            areas.append((address, head))
    return found, areas


def registries(mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return the mappings that begin a shared memory of ours."""
    return [mapping for mapping in mappings if mapping.path == MAPPED_AS and not mapping.offset]
