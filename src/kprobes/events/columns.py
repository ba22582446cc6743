"""Events as columns, without an object for each row where a run of one layout allows it."""

from __future__ import annotations

from struct import unpack
from typing import TYPE_CHECKING, Any, Literal

from kprobes.events.record import site_name
from kprobes.events.value import converter_of, struct_code
from kprobes.model.layout import Field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.events.decode import Piece, Run
    from kprobes.events.record import Codec, Event

_UNITS: tuple[tuple[int, Literal["Q", "I", "H", "B"]], ...] = ((8, "Q"), (4, "I"), (2, "H"), (1, "B"))
_SITE_FIELD = Field("site", "site", 4, 4)


class _Memo(dict[Any, Any]):
    """Converts each distinct value once: strings such as `comm` repeat."""

    def __init__(self, convert: Callable[..., Any]) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, key: Any) -> Any:
        value = self[key] = self._convert(key)
        return value


def columns(pieces: Sequence[Piece], codecs: Sequence[Codec]) -> dict[str, list[Any]]:
    """Return the records of *pieces* as lists: `event` and `site` (unless a field has that name), then every field."""
    table: dict[str, list[Any]] = {name: [] for name in column_names(codecs)}
    shadowed = {field.name for codec in codecs for field in codec.layout.fields}
    for piece in pieces:
        if isinstance(piece, list):
            _append_events(table, piece, shadowed)
        else:
            _append_run(table, piece, shadowed)
    return table


def column_names(codecs: Sequence[Codec]) -> list[str]:
    """Return the names of the columns for records of *codecs*."""
    fields = {field.name: None for codec in codecs for field in codec.layout.fields}
    return [name for name in ("event", "site") if name not in fields] + list(fields)


def strided(run: Run, offset: int, size: int) -> bytes:
    """Return the *size* bytes at *offset* of each record of *run*, one after the other."""
    start = run.start + run.skip + offset
    unit, code = next((unit, code) for unit, code in _UNITS if not (start % unit or size % unit or run.stride % unit))
    end = start + run.stride * (run.length - 1) + size
    source = run.data[start:end].cast(code)
    step = run.stride // unit
    if size == unit:
        return source[::step].tobytes()
    wide = size // unit
    target = memoryview(bytearray(size * run.length)).cast(code)
    for index in range(wide):
        target[index::wide] = source[index::step]
    return target.tobytes()


def _append_run(table: dict[str, list[Any]], run: Run, shadowed: set[str]) -> None:
    layout = run.codec.layout
    fields = {field.name: field for field in layout.fields}
    for name, column in table.items():
        if name in fields:
            column.extend(_values(run, fields[name]))
        elif name in shadowed:
            column.extend([None] * run.length)
        elif name == "event":
            column.extend([layout.name] * run.length)
        else:
            column.extend(_values(run, _SITE_FIELD))


def _values(run: Run, field: Field) -> Sequence[Any]:
    raw = strided(run, field.offset, field.size)
    code = struct_code(field.kind, field.size)
    if code.endswith("s"):
        size = field.size
        values: Sequence[Any] = [raw[at : at + size] for at in range(0, len(raw), size)]
    else:
        values = unpack(f"<{run.length}{code}", raw)
    if field.kind == "site":
        sites = run.codec.event._sites
        return list(map(_Memo(lambda number: site_name(sites, number)).__getitem__, values))
    convert = converter_of(field)
    return values if convert is None else list(map(_Memo(convert).__getitem__, values))


def _append_events(table: dict[str, list[Any]], events: Sequence[Event], shadowed: set[str]) -> None:
    for event in events:
        row = event.fields
        if "event" not in shadowed:
            row["event"] = event.layout.name
        if "site" not in shadowed:
            row["site"] = event.site
        for name, column in table.items():
            column.append(row.get(name))
