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


@dataclass(frozen=True, slots=True)
class Field:
    """One field at *offset*, *size* bytes. *kind* tells how to read and show it.

    Integers that have *names* for their values are shown by them; with *flags* a value is a set of bits that do.

    Kinds: `int` (signed), `uint`, `hex` (pointers), `bool`, `str` (NUL-terminated bytes), `symbol` (an address
    shown by
    name), `stack` and `user_stack` (i64 id in the stack map, negative is an errno), `site` (u32 index of a site).
    """

    name: str
    kind: str
    offset: int
    size: int
    names: tuple[tuple[int, str], ...] = ()
    flags: bool = False


@dataclass(frozen=True, slots=True)
class EventLayout:
    """One kind of record. *template* is a `str.format` template over the fields for `log`, or empty."""

    id: int
    name: str
    size: int
    fields: tuple[Field, ...]
    template: str = ""


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
      `hash`                key -> value, any fields.
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
