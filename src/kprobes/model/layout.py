"""How bytes that cross from a handler to Python are laid out: event records and map keys and values."""

from __future__ import annotations

from kprobes.frozen import dataclass

# Every record begins with: u32 event id, u32 site index. Fields follow, each aligned to its size, little-endian.
RECORD_HEADER = 8

# Counters of each site, u64 each, in this order, in the `stats` map: [shard][site][counter].
SITE_COUNTERS = ("hits", "missed", "lost", "faults")
SITE_COUNTER_BYTES = 8 * len(SITE_COUNTERS)

# A power-of-two histogram has a bucket for zero and negatives below: bucket 0 holds v < 0, bucket 1 holds 0, bucket
# n + 2
# holds 2**n <= v < 2**(n + 1).
LOG2_BUCKETS = 66


# What a `meta` map holds.
META_WINDOW, META_DROPPED = 0, 8
META_BYTES = 16
_HIGHEST = (1 << 63) - 1
# By what a signed value and its rank differ: the best value has the highest rank, as an unsigned number.
RANKS = {"min": _HIGHEST, "max": 1 << 63}


@dataclass(frozen=True, slots=True)
class Field:
    """One field at *offset*, *size* bytes. *kind* tells how to read and show it.

    Integers that have *names* for their values are shown by them; with *flags* a value is a set of bits that do.

    Kinds: `int` (signed), `uint`, `hex` (pointers), `bool`, `char` (a character), `str` (NUL-terminated bytes),
    `symbol` (an address shown by name), `symstr` (the same, as a string), `cgroup` (its id), `ipv4` (four bytes in
    network order), `stack` and `user_stack` (i64 id in the stack map, negative is an errno), `site` (u32 index of a
    site).
    """

    name: str
    kind: str
    offset: int
    size: int
    names: tuple[tuple[int, str], ...] = ()
    flags: bool = False


@dataclass(frozen=True, slots=True)
class EventLayout:
    """One kind of record. *template* is a `str.format` template over the fields for `log`, or empty; *definition* the
    text of the kernel's definition whose event it is (see `model.fetched`), or empty."""

    id: int
    name: str
    size: int
    fields: tuple[Field, ...]
    template: str = ""
    definition: str = ""


@dataclass(frozen=True, slots=True)
class Buckets:
    """How a histogram sorts values: `log2` (LOG2_BUCKETS buckets), or `linear` from *low* in steps of *step*,
    *count* + 2 buckets.

    Linear: bucket 0 holds values below *low*, the last one those at or above the end.
    """

    scale: str = "log2"
    low: int = 0
    step: int = 1
    count: int = LOG2_BUCKETS

    @property
    def total(self) -> int:
        """Return the number of u64 buckets stored."""
        return self.count if self.scale == "log2" else self.count + 2


@dataclass(frozen=True, slots=True)
class MapLayout:
    """A map as an engine creates it and as Python reads it.

    *kind*:
      `count`, `histogram`  aggregates; without a key they live in an array map of one entry, sharded:
      u64[shards][value.total
                            or 1]; with a key in a hash map whose value is u64[...] updated atomically.
      `min`, `max`, `avg`   aggregates of two u64: for `min` and `max` the rank of the best value (see `rank_of`) and
                            whether there is one; for `avg` the number of values and their sum.
      `hash`, `lru`         key -> value, any fields; of `lru` the key that was used longest ago goes when it is full.
      `array`               *max_entries* values one behind the other, by index; no key, one entry.
      `queue`               values, the oldest first; no key.
      `meta`                what belongs to the map in its name: u64 number of the window (see *windowed*), u64 writes
                            that found no room.
      `stats`               the site counters: u64[shards][sites][4], one array entry.
      `calls`               per-call data of return probes: key u64 frame, value the saved fields.
      `frames`              the same without helpers: one array entry of sets of 4 slots, each u64 frame (0: free)
      and value.
      `scratch`             working memory, per CPU, of a program whose stack is too small.
      `ring`                the ring buffer; *max_entries* is its size in bytes, a power of two.
      `stacks`              stack id -> u64[value_size / 8] addresses.
      `traces`              the same as a table: the addresses are the key, the number of the slot is the id.
      `unwind`              how frames are found, and working memory for it (see `model.shared`).
      `constants`           read-only bytes of the code in *initial*; one array entry.

    *windowed*: the last 8 bytes of a key are the number of the window in which it was added to. Whoever takes what the
    map holds begins a new window, waits until nobody adds to the old one any more, and takes its keys out.
    """

    name: str
    kind: str
    key_size: int
    value_size: int
    max_entries: int
    key: tuple[Field, ...] = ()
    value: tuple[Field, ...] = ()
    buckets: Buckets | None = None
    shards: int = 0
    initial: bytes = b""
    windowed: bool = False


def meta_of(layout: MapLayout) -> MapLayout:
    """Return the layout of what belongs to the map *layout* besides its content."""
    return MapLayout(f".meta.{layout.name}", "meta", 4, META_BYTES, 1)


def rank_of(kind: str, value: int) -> int:
    """Return the rank of *value* in a `min` or a `max`, 0 to 2**64 - 1; the higher the better. Values beyond i64 count
    as its highest."""
    return (min(value, _HIGHEST) & (1 << 64) - 1) ^ RANKS[kind]


def value_of(kind: str, rank: int) -> int:
    """Return the value that has *rank*."""
    word = rank ^ RANKS[kind]
    return word - (1 << 64) if word >> 63 else word


def align_up(value: int, alignment: int) -> int:
    """Return *value* rounded up to a multiple of *alignment*."""
    return -(-value // alignment) * alignment


def pack_fields(fields: list[tuple[str, str, int]], start: int = 0) -> tuple[tuple[Field, ...], int]:
    """Lay out (name, kind, size) one after the other from *start*; return the fields and the end, a multiple of 8.

    Integers are aligned to their size, strings to 1.
    """
    placed = []
    offset = start
    for name, kind, size in fields:
        offset = align_up(offset, 1 if kind == "str" else min(size, 8))
        placed.append(Field(name, kind, offset, size))
        offset += size
    return tuple(placed), align_up(offset, 8)
