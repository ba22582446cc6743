"""Raw map contents to Python values: sums, distributions and dicts.

Maps come from a target that may be hostile, so sizes are compared before anything is read. Merging is associative:
shards, guests and workers can be combined in any grouping.
"""

from __future__ import annotations

from struct import Struct, unpack

from kprobes.errors import FormatError
from kprobes.events.record import site_name, struct_format
from kprobes.events.value import converter_of
from kprobes.model.layout import RANKS, SITE_COUNTER_BYTES, SITE_COUNTERS, Buckets, value_of
from kprobes.model.plan import SiteStats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from kprobes.events.average import Average
    from kprobes.events.distribution import Distribution
    from kprobes.model.layout import Field, MapLayout

    _Dict = dict[Any, Any]
else:
    _Dict = dict


class Keyed(_Dict):
    """Sums or distributions by key, the largest first. `print` shows a table, or one histogram for each key."""

    def __str__(self) -> str:
        if not self:
            return "(nothing)"
        labels = [_label(key) for key in self]
        if not isinstance(next(iter(self.values())), int):
            return "\n\n".join(f"{label}\n{value}" for label, value in zip(labels, self.values(), strict=True))
        wide = max(map(len, labels))
        digits = max(len(str(value)) for value in self.values())
        return "\n".join(
            f"{label:<{wide}} {value:>{digits}}" for label, value in zip(labels, self.values(), strict=True)
        )


def read_map(pairs: Sequence[tuple[bytes, bytes]], layout: MapLayout, sites: Sequence[str] = ()) -> Any:
    """Return what the map of *layout* holds; *pairs* are its raw (key, value), *sites* the names for `site` fields.

    `count`: an int, or a `Keyed` of ints. `histogram`: a `Distribution`, or a `Keyed` of them. `avg`: an `Average`, or
    a `Keyed` of them. `min`, `max`: an int (None where there is no value), or a `Keyed` of ints. `hash`, `lru`: a dict.
    `array`, `queue`: a list. A key or value of one field is that field's value, one of several is a tuple. Sums are
    signed 64-bit numbers.

    Raises:
        FormatError: a key or value has another size than the layout says, or such a map holds no values.
    """
    _check(pairs, layout)
    if layout.kind in ("array", "queue"):
        read_value = _fields_reader(layout.value, layout.value_size, sites)
        return [read_value(part) for _, value in pairs for part in _pieces(value, layout.value_size)]
    if layout.kind in ("hash", "lru"):
        read_key = _fields_reader(layout.key, layout.key_size, sites)
        read_value = _fields_reader(layout.value, layout.value_size, sites)
        return {read_key(key): read_value(value) for key, value in pairs}
    read = _reader_of(layout)
    if not layout.key:
        return read(pairs[0][1] if pairs else bytes(layout.value_size))
    read_key = _fields_reader(layout.key, layout.key_size, sites)
    found = _gather(((read_key(key), read(value)) for key, value in pairs), _JOINS.get(layout.kind, merge))
    return Keyed(reversed(found.items())) if layout.kind == "min" else found


def _reader_of(layout: MapLayout) -> Callable[[bytes], Any]:
    """Return what reads a value of an aggregate."""
    if layout.kind == "count":
        return _sum_of
    if layout.kind == "histogram":
        return _distribution_of(layout.buckets or Buckets())
    if layout.kind == "avg":
        return _average_of()
    if layout.kind in RANKS:
        return lambda raw: _best_of(layout.kind, raw)
    raise FormatError(f"map {layout.name!r} is of kind {layout.kind!r}, which holds no values")


def _pieces(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def merge(one: Any, other: Any, kind: str = "") -> Any:
    """Return two results of `read_map` for one layout as one: sums, distributions and averages add up, key by key.

    *kind* is that of the layout: of `min` and `max` the better value stays. Where both are plain dicts (HashMap), the
    *other*'s value of a key that is in both stays.

    Raises:
        TypeError: they are not of one kind.
        ValueError: they are distributions with different buckets.
    """
    join = _JOINS.get(kind, merge)
    if kind in _JOINS and not isinstance(one, dict):
        return join(one, other)
    if type(one) is not type(other):
        raise TypeError(f"can't merge {type(one).__name__} with {type(other).__name__}")
    if isinstance(one, Keyed):
        return _gather([*one.items(), *other.items()], join)
    if isinstance(one, dict):
        return {**one, **other}
    total = one + other
    return _signed(total) if isinstance(total, int) else total


def read_stats(pairs: Sequence[tuple[bytes, bytes]], layout: MapLayout, sites: int) -> list[SiteStats]:
    """Return the counters of *sites* sites from the `stats` map, its shards summed up.

    Raises:
        FormatError: the map has another size than the layout says.
    """
    _check(pairs, layout)
    shards = max(layout.shards, 1)
    if not pairs or layout.value_size != shards * sites * SITE_COUNTER_BYTES:
        raise FormatError(f"map {layout.name!r} does not hold the counters of {sites} sites")
    width = len(SITE_COUNTERS)
    counters = _shard_sums(pairs[0][1], sites * width)
    return [SiteStats(site, *counters[site * width : site * width + width]) for site in range(sites)]


def _check(pairs: Sequence[tuple[bytes, bytes]], layout: MapLayout) -> None:
    key_size = layout.key_size if layout.key else None
    value_size = layout.value_size * (layout.max_entries if layout.kind == "array" else 1)
    for key, value in pairs:
        if len(value) != value_size or (key_size is not None and len(key) != key_size):
            raise FormatError(f"map {layout.name!r} gave a key or value of the wrong size")


def _shard_sums(raw: bytes, width: int) -> list[int]:
    """Return the sums of *raw*, any number of shards of *width* u64 counters each."""
    numbers = unpack(f"<{len(raw) // 8}Q", raw)
    if len(numbers) == width:
        return list(numbers)
    return [sum(numbers[index::width]) for index in range(width)]


def _sum_of(raw: bytes) -> int:
    return _signed(_shard_sums(raw, 1)[0])


def _signed(number: int) -> int:
    """Return *number* as the 64-bit counter it stands for: handlers may add negative amounts."""
    return ((number + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def _average_of() -> Callable[[bytes], Average]:
    from kprobes.events.average import Average  # most sessions have none

    def read(raw: bytes) -> Average:
        count, total = _shard_sums(raw, 2)
        return Average(count, _signed(total))

    return read


def _best_of(kind: str, raw: bytes) -> int | None:
    """Return the value of the highest rank in *raw*, shards of two u64: rank, and whether there is one."""
    numbers = unpack(f"<{len(raw) // 8}Q", raw)
    ranks = [rank for rank, is_there in zip(numbers[::2], numbers[1::2], strict=True) if rank or is_there]
    return value_of(kind, max(ranks)) if ranks else None


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _greatest(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


_JOINS: dict[str, Callable[[Any, Any], Any]] = {"min": _least, "max": _greatest}


def _distribution_of(buckets: Buckets) -> Callable[[bytes], Distribution]:
    from kprobes.events.distribution import Distribution  # sessions without histograms needn't wait for it

    return lambda raw: Distribution(buckets, tuple(_shard_sums(raw, buckets.total)))


def _fields_reader(fields: Sequence[Field], size: int, sites: Sequence[str]) -> Callable[[bytes], Any]:
    """Return what reads a key or value of *fields*: one value, or a tuple of several."""
    reader = Struct(f"<{struct_format(fields, 0, size)}")
    converts = [_convert(field, sites) for field in fields]
    if len(fields) == 1:
        convert = converts[0]
        return lambda raw: convert(reader.unpack(raw)[0])
    made = _struct_type(fields)
    if made is not None:
        return lambda raw: made(*[convert(value) for convert, value in zip(converts, reader.unpack(raw), strict=True)])
    return lambda raw: tuple(convert(value) for convert, value in zip(converts, reader.unpack(raw), strict=True))


def _struct_type(fields: Sequence[Field]) -> Callable[..., Any] | None:
    """Return the named tuple for a key or value that is one struct, None for others."""
    owner = fields[0].name.partition(".")[0]
    if not all(field.name.startswith(f"{owner}.") for field in fields):
        return None
    import re  # few maps hold structs
    from collections import namedtuple

    names = [re.sub(r"\W+", "_", field.name.removeprefix(f"{owner}.")).rstrip("_") for field in fields]
    return namedtuple(owner.capitalize(), names, rename=True)


def _convert(field: Field, sites: Sequence[str]) -> Callable[..., Any]:
    if field.kind == "site":
        return lambda number: site_name(sites, number)
    return converter_of(field) or int


def _gather(pairs: Iterable[tuple[Any, Any]], join: Callable[[Any, Any], Any] = merge) -> Keyed:
    """Return *pairs* by key, those of one key joined, the largest first."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        found[key] = join(found[key], value) if key in found else value
    return Keyed(sorted(found.items(), key=lambda item: (-_weight(item[1]), str(item[0]))))


def _weight(value: int | Distribution | Average | None) -> float:
    return value or 0 if value is None or isinstance(value, int) else value.weight


def _label(key: object) -> str:
    """Return *key* for people; `repr` of strings keeps control characters away from a terminal."""
    if isinstance(key, tuple):
        return ", ".join(map(_label, key))
    text = str(key)
    return text if text.isprintable() else repr(text)
