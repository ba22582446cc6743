"""A run of records of one layout as an Arrow table, by machine code: each part makes one column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from kprobes.arch.x86_64.transpose import BOUNDED, COLUMN, SEEN, SLACK, TEXT
from kprobes.model.layout import Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.events.record import Codec
    from kprobes.events.transpose import Machine

SIGNED = frozenset({"int", "stack", "user_stack"})
WIDTHS = frozenset({1, 2, 4, 8})
SITE = Field("site", "site", 4, 4)
_WORD = 8


def type_of(pa: Any, field: Field, *, text: bool) -> Any:
    """Return the Arrow type of a field."""
    if field.kind == "str":
        return pa.string() if text else pa.binary()
    if field.kind == "bool":
        return pa.bool_()
    if field.kind == "site":
        return pa.dictionary(pa.uint32(), pa.string())
    if field.size not in WIDTHS:
        return pa.decimal128(38)
    return getattr(pa, f"{'int' if field.kind in SIGNED else 'uint'}{8 * field.size}")()


def valid(text: str) -> str:
    """Return *text* with bytes that are no UTF-8 (kept as surrogates) as `\\xNN`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Part(Protocol):
    """Makes one column."""

    def begin(self, count: int) -> tuple[bytes, Any]:
        """Return what the machine is told (nothing, where it has nothing to do), and the memory that it fills."""

    def end(self, filled: Any, count: int, reached: int) -> Any:
        """Return the column; *reached* is what the machine leaves behind in `SEEN`."""


class Rows:
    """Makes tables of *schema* of runs of one layout; *parts* are its columns."""

    __slots__ = ("_pa", "_parts", "_schema")

    def __init__(self, pa: Any, schema: Any, parts: Sequence[Part]) -> None:
        self._pa = pa
        self._schema = schema
        self._parts = parts

    def table(self, machine: Machine, at: int, stride: int, count: int) -> Any:
        """Return *count* records, one every *stride* bytes from address *at* on, as a table."""
        told = bytearray()
        filled = []
        for part in self._parts:
            words, room = part.begin(count)
            filled.append((len(told) + SEEN, room))
            told += words
        machine.transpose(told, at, stride, count)
        told += bytes(COLUMN.size)  # parts without words have a place too
        arrays = [
            part.end(room, count, int.from_bytes(told[seen : seen + _WORD], "little"))
            for part, (seen, room) in zip(self._parts, filled, strict=True)
        ]
        return self._pa.Table.from_arrays(arrays, schema=self._schema)


def plan(pa: Any, codec: Codec, codecs: Sequence[Codec], schema: Any, *, text: bool) -> Rows | None:
    """Return what makes tables of *schema* of the records of *codec*, one of *codecs*.

    None where a field is of an odd width, or of a type that another layout forces upon it.
    """
    fields: dict[str, Field] = {field.name: field for field in codec.layout.fields}
    shadowed = {field.name for one in codecs for field in one.layout.fields}
    if SITE.name not in shadowed:
        fields[SITE.name] = SITE
    parts: list[Part] = []
    for column in schema:
        field = fields.get(column.name)
        if field is None:
            label = valid(codec.layout.name) if column.name not in shadowed else None
            parts.append(_Same(pa, column.type, label))
        elif type_of(pa, field, text=text) != column.type or (field.kind != "str" and field.size not in WIDTHS):
            return None
        elif field.kind == "str":
            parts.append(_Texts(pa, column.type, field))
        elif field.kind == "site":
            parts.append(_Sites(pa, field, codec.event._sites))
        else:
            parts.append(_Numbers(pa, column.type, field))
    return Rows(pa, schema, parts)


class _Numbers:
    """Integers; truth values by way of integers."""

    def __init__(self, pa: Any, kind: Any, field: Field) -> None:
        self._pa = pa
        self._is_bool = field.kind == "bool"
        self._type = getattr(pa, f"uint{8 * field.size}")() if self._is_bool else kind
        self._field = field

    def begin(self, count: int) -> tuple[bytes, Any]:
        size = self._field.size
        room = self._pa.allocate_buffer(size * count)
        return COLUMN.pack(size, self._field.offset, room.address, 0, 0, 0), room

    def end(self, filled: Any, count: int, reached: int) -> Any:  # noqa: ARG002
        made = self._pa.Array.from_buffers(self._type, count, [None, filled])
        return made.cast(self._pa.bool_()) if self._is_bool else made


class _Texts:
    """Strings, each up to its NUL."""

    def __init__(self, pa: Any, kind: Any, field: Field) -> None:
        self._pa = pa
        self._is_text = pa.types.is_string(kind)
        self._field = field

    def begin(self, count: int) -> tuple[bytes, Any]:
        ends = self._pa.allocate_buffer(4 * (count + 1))
        memoryview(ends).cast("B")[:4] = bytes(4)
        size = self._field.size
        texts = self._pa.allocate_buffer(size * count + SLACK, resizable=True)
        words = COLUMN.pack(TEXT, self._field.offset, ends.address + 4, size, texts.address, texts.address)
        return words, (ends, texts, texts.address)

    def end(self, filled: Any, count: int, reached: int) -> Any:
        ends, texts, begin = filled
        texts.resize(reached - begin)
        made = self._pa.Array.from_buffers(self._pa.binary(), count, [None, ends, texts])
        return _decoded(self._pa, made) if self._is_text else made


def _decoded(pa: Any, made: Any) -> Any:
    """Return binary as text; what is no UTF-8 stands as `\\xNN`."""
    try:
        return made.cast(pa.string())
    except pa.ArrowInvalid:
        encoded = made.dictionary_encode()
        distinct = [value.decode("utf-8", "backslashreplace") for value in encoded.dictionary.to_pylist()]
        return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(distinct, pa.string())).dictionary_decode()


class _Sites:
    """Numbers of sites, as names; a number that is none is `?`."""

    def __init__(self, pa: Any, field: Field, sites: Sequence[str]) -> None:
        self._pa = pa
        self._offset = field.offset
        names = [valid(name) for name in sites]
        self._count = len(names)
        self._names = pa.array(names, pa.string())
        self._more_names = pa.array([*names, "?"], pa.string())

    def begin(self, count: int) -> tuple[bytes, Any]:
        room = self._pa.allocate_buffer(4 * count)
        return COLUMN.pack(BOUNDED, self._offset, room.address, self._count, 0, 0), room

    def end(self, filled: Any, count: int, reached: int) -> Any:
        numbers = self._pa.Array.from_buffers(self._pa.uint32(), count, [None, filled])
        names = self._more_names if reached >= self._count else self._names
        return self._pa.DictionaryArray.from_arrays(numbers, names, safe=False)


class _Same:
    """One label for all records, or nothing."""

    def __init__(self, pa: Any, kind: Any, label: str | None) -> None:
        self._pa = pa
        self._type = kind
        self._label = None if label is None else pa.array([label], pa.string())
        self._zeros = pa.py_buffer(b"")

    def begin(self, count: int) -> tuple[bytes, Any]:
        if self._zeros.size < 4 * count:
            self._zeros = self._pa.py_buffer(bytes(4 * count))
        return b"", None

    def end(self, filled: Any, count: int, reached: int) -> Any:  # noqa: ARG002
        if self._label is None:
            return self._pa.nulls(count, self._type)
        numbers = self._pa.Array.from_buffers(self._pa.uint32(), count, [None, self._zeros])
        return self._pa.DictionaryArray.from_arrays(numbers, self._label, safe=False)
