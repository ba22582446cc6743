"""What a map holds as an Arrow table: a row for each key, for each bucket, for each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.events.arrow import load_pyarrow
from kprobes.events.rows import type_of, valid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kprobes.model.layout import Field, MapLayout

    Row = tuple[Any, ...]

# The columns of a value that is no field of the user's: (name, Arrow type).
_RESULTS = {
    "count": (("value", "int64"),),
    "min": (("value", "int64"),),
    "max": (("value", "int64"),),
    "avg": (("count", "int64"), ("total", "int64"), ("mean", "float64")),
    "histogram": (("low", "int64"), ("high", "int64"), ("count", "uint64")),
}


def table_of(layout: MapLayout, held: Any) -> Any:
    """Return *held*, which `read_map` gave for *layout*, as a `pyarrow.Table`.

    Columns of the key, called `key` or `key0`, `key1`, ..., of an array `index`; then those of the value: `value` or
    `value0`, ...; `count`, `total` and `mean` of an Avg; of a Histogram there is a row for each bucket from the first
    to the last that isn't empty, with `low` (null: open), `high` (null: open) and `count`. Stacks are their ids.

    Raises:
        UnsupportedError: pyarrow isn't installed.
    """
    pa = load_pyarrow()
    schema = _schema(pa, layout)
    rows = list(_rows(layout, held))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [
        pa.array([_plain(one) for one in values], kind) for values, (_, kind) in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, names=[name for name, _ in schema])


def _schema(pa: Any, layout: MapLayout) -> list[tuple[str, Any]]:
    found = [("index", pa.uint32())] if layout.kind == "array" else []
    found += _fields(pa, layout.key)
    results = _RESULTS.get(layout.kind)
    if results is None:
        return [*found, *_fields(pa, layout.value)]
    return [*found, *((name, pa.type_for_alias(kind)) for name, kind in results)]


def _fields(pa: Any, fields: Sequence[Field]) -> list[tuple[str, Any]]:
    return [(field.name, type_of(pa, field, text=True)) for field in fields]


def _rows(layout: MapLayout, held: Any) -> Iterator[Row]:
    for key, value in _items(layout, held):
        for result in _results(layout, value):
            yield (*key, *result)


def _items(layout: MapLayout, held: Any) -> Iterable[tuple[Row, Any]]:
    """Yield (fields of the key, value)."""
    if layout.kind == "array":
        return (((index,), value) for index, value in enumerate(held))
    if not layout.key:
        return [((), held)]
    return ((_row(key), value) for key, value in held.items())


def _results(layout: MapLayout, value: Any) -> Iterable[Row]:
    if layout.kind == "histogram":
        rows: Iterable[Row] = value.rows
        return rows
    if layout.kind == "avg":
        return [(value.count, value.total, value.mean)]
    if layout.kind in _RESULTS:
        return [(value,)]
    return [_row(value)]


def _row(one: Any) -> Row:
    return one if isinstance(one, tuple) else (one,)


def _plain(one: Any) -> Any:
    if isinstance(one, str):
        return valid(one)
    return int(one) if isinstance(one, int) and not isinstance(one, bool) else one
