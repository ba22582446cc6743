"""Plans, layouts and features as bytes: cached on disk, sent into a guest, put into a bundle.

    magic "KPW1", u32 length of the head, head (JSON), blobs one after the other

The head is `{"type": name, "data": [...], "blobs": [length, ...]}`. A dataclass is the list of its fields in order, a
tuple is a list, bytes are the number of a blob. The fields' annotations are the schema, so nothing is pickled and
whatever doesn't fit is refused.

A tuple of many dataclasses whose fields are all plain (sites come by the thousand, and an emulated CPU reads them) is
`{"columns": [...]}`: for each field the list of its values, `{"all": value}`, or the number of an equal column before.
"""

from __future__ import annotations

import struct
from json import JSONDecodeError, dumps, loads

from kprobes.errors import FormatError
from kprobes.model import caution, features, layout, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Reader = Callable[[object], object]
    T = TypeVar("T")

MAGIC = b"KPW1"
LENGTH = struct.Struct("<I")
PLAIN: dict[str, type] = {"int": int, "str": str, "bool": bool}
# From so many things of one kind on they are sent by columns.
MANY = 16
_PLAIN_TYPES: dict[type, tuple[type, ...] | None] = {}

TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        features.Features,
        layout.Field,
        layout.EventLayout,
        layout.Buckets,
        layout.MapLayout,
        plan.Site,
        plan.Relocation,
        plan.NativeRelocation,
        plan.NativeProgram,
        plan.CodeObject,
        plan.Unwinding,
        caution.Caution,
        plan.Assertion,
        plan.SourceLine,
        plan.Program,
        plan.Attachment,
        plan.PlannedProbe,
        plan.TraceEvent,
        plan.Plan,
        plan.SiteStats,
        plan.LinkStats,
    )
}


def plan_to_bytes(value: plan.Plan) -> bytes:
    """Return a plan as bytes."""
    return to_bytes(value)


def plan_from_bytes(data: bytes) -> plan.Plan:
    """Return the plan in *data*.

    Raises:
        FormatError: *data* is malformed, or a plan of another version.
    """
    value = from_bytes(data, plan.Plan)
    if value.version != plan.PLAN_VERSION:
        raise FormatError(f"this plan is of version {value.version}, not {plan.PLAN_VERSION}", hint="compile it again")
    return value


def to_bytes(value: object) -> bytes:
    """Return a dataclass of `TYPES`, or a list of equal ones, as bytes."""
    blobs: list[bytes] = []
    name = type(value[0]).__name__ if isinstance(value, list) and value else type(value).__name__
    data = _flatten(value, blobs)
    head = dumps({"type": name, "data": data, "blobs": [len(blob) for blob in blobs]}, separators=(",", ":")).encode()
    return b"".join((MAGIC, LENGTH.pack(len(head)), head, *blobs))


def from_bytes(data: bytes, expected: type[T]) -> T:
    """Return the value of class *expected* that `to_bytes` wrote.

    Raises:
        FormatError: *data* is malformed or holds something else.
    """
    return _Decoder(data).decode(expected)


def list_from_bytes(data: bytes, expected: type[T]) -> list[T]:
    """Return the list of values of class *expected* that `to_bytes` wrote.

    Raises:
        FormatError: *data* is malformed or holds something else.
    """
    return _Decoder(data).decode_list(expected)


def _flatten(value: object, blobs: list[bytes]) -> object:
    if isinstance(value, bytes):
        blobs.append(value)
        return len(blobs) - 1
    if isinstance(value, tuple | list):
        columns = _to_columns(value) if len(value) >= MANY else None
        return columns or [_flatten(part, blobs) for part in value]
    slots = _fields_of(type(value))
    return [_flatten(getattr(value, name), blobs) for name in slots] if slots is not None else value


def _to_columns(values: Sequence[object]) -> dict[str, list[object]] | None:
    """Return *values* by columns; None where they aren't all plain things of one kind, or all equal (nothing would tell
    how many)."""
    kind = type(values[0])
    if _fields_of(kind) is None or _plain_types(kind) is None or set(map(type, values)) != {kind}:
        return None
    columns = [(plain, [getattr(one, name) for one in values]) for name, plain in kind.__annotations__.items()]
    said: list[object] = []
    for number, (plain, column) in enumerate(columns):
        before = columns.index((plain, column))
        if column.count(column[0]) == len(column):
            said.append({"all": column[0]})
        else:
            said.append(column if before == number else before)
    return {"columns": said} if list in map(type, said) else None


def _fields_of(kind: type) -> dict[str, str] | None:
    return kind.__annotations__ if TYPES.get(kind.__name__) is kind else None


class _Decoder:
    """Reads one message against the schema that the annotations are."""

    def __init__(self, data: bytes) -> None:
        if data[:4] != MAGIC or len(data) < 8:
            raise FormatError("this is not an encoded plan")
        end = 8 + LENGTH.unpack_from(data, 4)[0]
        try:
            head = loads(data[8:end])
        except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError("the head of an encoded plan is malformed") from error
        if end > len(data) or not isinstance(head, dict) or not isinstance(head.get("blobs"), list):
            raise FormatError("the head of an encoded plan is malformed")
        self._type = head.get("type")
        self._data = head.get("data")
        self._blobs = _split(data, end, head["blobs"])
        self._readers: dict[str, Reader] = {}

    def decode(self, expected: type[T]) -> T:
        self._check_type(expected)
        return self._object(expected, self._data)

    def decode_list(self, expected: type[T]) -> list[T]:
        if self._data == []:
            return []
        self._check_type(expected)
        if not isinstance(self._data, list):
            raise FormatError(f"an encoded list of {expected.__name__} is malformed")
        return [self._object(expected, part) for part in self._data]

    def _check_type(self, expected: type) -> None:
        if self._type != expected.__name__:
            raise FormatError(f"an encoded {expected.__name__} was expected, not {str(self._type)[:40]!r}")

    def _object(self, kind: type[T], data: object) -> T:
        names = kind.__annotations__
        if not isinstance(data, list) or len(data) != len(names):
            raise FormatError(f"an encoded {kind.__name__} has the wrong number of fields")
        if tuple(map(type, data)) == _plain_types(kind):
            return kind(*data)
        return kind(*[self._reader(text)(part) for text, part in zip(names.values(), data, strict=True)])

    def _reader(self, annotation: str) -> Reader:
        reader = self._readers.get(annotation)
        if reader is None:
            reader = self._readers[annotation] = self._make_reader(annotation)
        return reader

    def _make_reader(self, annotation: str) -> Reader:
        if annotation.endswith(" | None"):
            inner = self._reader(annotation.removesuffix(" | None"))
            return lambda data: None if data is None else inner(data)
        if annotation.startswith("tuple["):
            return self._tuple_reader(_split_types(annotation[6:-1]))
        if annotation == "bytes":
            return self._blob
        kind = TYPES.get(annotation)
        if kind is not None:
            return lambda data: self._object(kind, data)
        plain = PLAIN[annotation]
        return lambda data: _expect(plain, data)

    def _tuple_reader(self, types: list[str]) -> Reader:
        """Return the reader of `tuple[X, ...]`, or of a tuple with a type for each place."""
        if types[-1] == "...":
            return self._list_reader(types[0])
        readers = [self._reader(kind) for kind in types]

        def read(data: object) -> object:
            parts = _expect(list, data)
            if len(parts) != len(readers):
                raise FormatError(f"an encoded tuple has {len(parts)} parts, not {len(readers)}")
            return tuple(reader(part) for reader, part in zip(readers, parts, strict=True))

        return read

    def _list_reader(self, annotation: str) -> Reader:
        """Return the reader of a tuple of any length; plain things are checked at once, or by columns."""
        element = self._reader(annotation)
        plain, kind = PLAIN.get(annotation), TYPES.get(annotation)

        def read(data: object) -> object:
            if kind is not None and type(data) is dict:
                return _from_columns(kind, data)
            parts = _expect(list, data)
            if plain is not None and set(map(type, parts)) == {plain}:
                return tuple(parts)
            return tuple(map(element, parts))

        return read

    def _blob(self, data: object) -> bytes:
        number = _expect(int, data)
        if not 0 <= number < len(self._blobs):
            raise FormatError("an encoded plan names a blob that isn't there")
        return self._blobs[number]


def _plain_types(kind: type) -> tuple[type, ...] | None:
    """Return the types of the fields of *kind* if they stand in the message as they are."""
    if kind not in _PLAIN_TYPES:
        types = [PLAIN.get(annotation) for annotation in kind.__annotations__.values()]
        _PLAIN_TYPES[kind] = None if None in types else tuple([one for one in types if one])
    return _PLAIN_TYPES[kind]


def _from_columns(kind: type, data: dict[str, object]) -> tuple[object, ...]:
    """Return the instances of *kind* that `_to_columns` wrote; no step is Python's own for each of them.

    A slot's descriptor sets the field of a frozen instance, as unpickling would.

    Raises:
        FormatError: a column is missing, too short, or of another type.
    """
    plain, names = _plain_types(kind), list(kind.__annotations__)
    said = data.get("columns")
    if plain is None or not isinstance(said, list) or len(said) != len(names):
        raise FormatError(f"encoded columns of {kind.__name__} are malformed")
    count = max([len(column) for column in said if isinstance(column, list)], default=0)
    columns: list[list[object]] = []
    for column, expected in zip(said, plain, strict=True):
        if type(column) is int and 0 <= column < len(columns):
            column = columns[column]
        elif type(column) is dict:
            column = [column.get("all")] * count
        if not isinstance(column, list) or len(column) != count or not set(map(type, column)) <= {expected}:
            raise FormatError(f"an encoded column of {kind.__name__} does not fit")
        columns.append(column)
    made: tuple[object, ...] = tuple([object.__new__(kind) for _ in range(count)])
    for name, column in zip(names, columns, strict=True):
        any(map(getattr(kind, name).__set__, made, column))  # each call gives None: `any` runs the map to its end
    return made


def _split_types(text: str) -> list[str]:
    """Split the types of a tuple at its own commas, not at those of tuples inside."""
    types = [""]
    depth = 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and not depth:
            types.append("")
        else:
            types[-1] += character
    return [kind.strip() for kind in types]


def _expect(kind: type[T], data: object) -> T:
    if type(data) is not kind:
        raise FormatError(f"an encoded plan has {type(data).__name__} where {kind.__name__} belongs")
    return data


def _split(data: bytes, start: int, lengths: list[object]) -> list[bytes]:
    blobs = []
    for length in lengths:
        if type(length) is not int or not 0 <= length <= len(data) - start:
            raise FormatError("an encoded plan is cut short")
        blobs.append(data[start : start + length])
        start += length
    if start != len(data):
        raise FormatError("an encoded plan has bytes left over")
    return blobs
