"""Raw map contents to Python values: sums, distributions and dicts.

Maps come from a target that may be hostile, so sizes are compared before anything is read. Merging is associative:
shards, guests and workers can be combined in any grouping.
"""

from __future__ import annotations

from struct import Struct, unpack

from kprobes.errors import FormatError
from kprobes.events.record import site_name, struct_format
from kprobes.events.value import converter_of
from kprobes.model.layout import SITE_COUNTER_BYTES, SITE_COUNTERS, Buckets
from kprobes.model.plan import SiteStats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

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

    `count`: an int, or a `Keyed` of ints. `histogram`: a `Distribution`, or a `Keyed` of them. `hash`: a dict. A key
    or value of one field is that field's value, one of several is a tuple. Sums are signed 64-bit numbers.

    Raises:
        FormatError: a key or value has another size than the layout says, or such a map holds no values.
    """
    _check(pairs, layout)
    if layout.kind == "hash":
        read_key = _fields_reader(layout.key, layout.key_size, sites)
        read_value = _fields_reader(layout.value, layout.value_size, sites)
        return {read_key(key): read_value(value) for key, value in pairs}
    if layout.kind not in ("count", "histogram"):
        raise FormatError(f"map {layout.name!r} is of kind {layout.kind!r}, which holds no values")
    read = _sum_of if layout.kind == "count" else _distribution_of(layout.buckets or Buckets())
    if not layout.key:
        return read(pairs[0][1] if pairs else bytes(layout.value_size))
    read_key = _fields_reader(layout.key, layout.key_size, sites)
    return _gather((read_key(key), read(value)) for key, value in pairs)


def merge(one: Any, other: Any) -> Any:
    """Return two results of `read_map` for one layout as one: sums and distributions add up, key by key.

    Where both are plain dicts (HashMap), the *other*'s value of a key that is in both stays.

    Raises:
        TypeError: they are not of one kind.
        ValueError: they are distributions with different buckets.
    """
    if type(one) is not type(other):
        raise TypeError(f"can't merge {type(one).__name__} with {type(other).__name__}")
    if isinstance(one, Keyed):
        return _gather([*one.items(), *other.items()])
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
    for key, value in pairs:
        if len(value) != layout.value_size or (key_size is not None and len(key) != key_size):
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
    return lambda raw: tuple(convert(value) for convert, value in zip(converts, reader.unpack(raw), strict=True))


def _convert(field: Field, sites: Sequence[str]) -> Callable[..., Any]:
    if field.kind == "site":
        return lambda number: site_name(sites, number)
    return converter_of(field) or int


def _gather(pairs: Iterable[tuple[Any, Any]]) -> Keyed:
    """Return *pairs* by key, those of one key added up, the largest first."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        found[key] = merge(found[key], value) if key in found else value
    return Keyed(sorted(found.items(), key=lambda item: (-_weight(item[1]), str(item[0]))))


def _weight(value: int | Distribution) -> int:
    return value if isinstance(value, int) else value.total


def _label(key: object) -> str:
    """Return *key* for people; `repr` of strings keeps control characters away from a terminal."""
    if isinstance(key, tuple):
        return ", ".join(map(_label, key))
    text = str(key)
    return text if text.isprintable() else repr(text)
