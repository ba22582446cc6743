"""Events as Arrow tables. The only place here that knows pyarrow, which is optional and loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.errors import UnsupportedError
from kprobes.events.columns import column_names, columns, strided
from kprobes.model.layout import Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.events.decode import Piece, Run
    from kprobes.events.record import Codec

_SIGNED = frozenset({"int", "stack", "user_stack"})
_WIDTHS = frozenset({1, 2, 4, 8})
_SITE = Field("site", "site", 4, 4)


def table(pieces: Sequence[Piece], codecs: Sequence[Codec], *, text: bool) -> Any:
    """Return *pieces* as one `pyarrow.Table` whose schema depends on *codecs* and *text* alone.

    Raises:
        UnsupportedError: pyarrow isn't installed.
    """
    pa = _pyarrow()
    schema = _schema(pa, codecs, text=text)
    parts: list[Any] = []
    loose: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, list) or len(codecs) > 1:
            loose.append(piece)
            continue
        if loose:
            parts.append(_from_columns(pa, columns(loose, codecs), schema))
            loose = []
        parts.append(_from_run(pa, piece, schema))
    if loose or not parts:
        parts.append(_from_columns(pa, columns(loose, codecs), schema))
    return pa.concat_tables(parts)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UnsupportedError("Arrow tables need pyarrow", hint="pip install kprobes[arrow]") from error
    return pyarrow


def _type(pa: Any, field: Field, *, text: bool) -> Any:
    if field.kind == "str":
        return pa.string() if text else pa.binary()
    if field.kind == "bool":
        return pa.bool_()
    if field.kind == "site":
        return pa.dictionary(pa.uint32(), pa.string())
    if field.size not in _WIDTHS:
        return pa.decimal128(38)
    return getattr(pa, f"{'int' if field.kind in _SIGNED else 'uint'}{8 * field.size}")()


def _schema(pa: Any, codecs: Sequence[Codec], *, text: bool) -> Any:
    """Return the schema: a name that has different types in different layouts becomes a string."""
    types: dict[str, Any] = {}
    for codec in codecs:
        for field in codec.layout.fields:
            found = _type(pa, field, text=text)
            types[field.name] = found if types.get(field.name, found) == found else pa.string()
    label = pa.dictionary(pa.uint32(), pa.string())
    return pa.schema([(name, types.get(name, label)) for name in column_names(codecs)])


def _from_columns(pa: Any, data: dict[str, list[Any]], schema: Any) -> Any:
    arrays = []
    for field in schema:
        values = data[field.name]
        if pa.types.is_binary(field.type):
            values = [v if v is None else v.encode("utf-8", "surrogateescape") for v in values]
        elif pa.types.is_string(field.type):
            values = [v if v is None else _valid(str(v)) for v in values]
        elif pa.types.is_dictionary(field.type):
            arrays.append(pa.array([v if v is None else _valid(v) for v in values], pa.string()).dictionary_encode())
            arrays[-1] = arrays[-1].cast(field.type)
            continue
        arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _from_run(pa: Any, run: Run, schema: Any) -> Any:
    layout = run.codec.layout
    fields = {field.name: field for field in layout.fields}
    arrays = []
    for column in schema:
        field = fields.get(column.name)
        if field is None and column.name == "event":
            indices = pa.Array.from_buffers(pa.uint32(), run.length, [None, pa.py_buffer(bytes(4 * run.length))])
            arrays.append(pa.DictionaryArray.from_arrays(indices, pa.array([_valid(layout.name)])))
        else:
            arrays.append(_array(pa, run, field or _SITE, column.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(pa: Any, run: Run, field: Field, kind: Any) -> Any:
    if field.kind == "site":
        return _sites(pa, run, field, kind)
    raw = strided(run, field.offset, field.size)
    if field.kind == "str":
        return _strings(pa, raw, run.length, field.size, kind)
    if field.size not in _WIDTHS:
        signed = field.kind in _SIGNED
        size = field.size
        values = [int.from_bytes(raw[at : at + size], "little", signed=signed) for at in range(0, len(raw), size)]
        return pa.array(values, kind)
    if field.kind == "bool":
        width = getattr(pa, f"uint{8 * field.size}")()
        numbers = pa.Array.from_buffers(width, run.length, [None, pa.py_buffer(raw)])
        return numbers.cast(pa.bool_())
    return pa.Array.from_buffers(kind, run.length, [None, pa.py_buffer(raw)])


def _sites(pa: Any, run: Run, field: Field, kind: Any) -> Any:
    names = [_valid(name) for name in run.codec.event._sites]
    raw = strided(run, field.offset, 4)
    numbers = memoryview(raw).cast("I")
    if max(numbers) >= len(names):
        bounded = bytearray()
        for number in numbers:
            bounded += min(number, len(names)).to_bytes(4, "little")
        raw = bytes(bounded)
        names.append("?")
    indices = pa.Array.from_buffers(pa.uint32(), run.length, [None, pa.py_buffer(raw)])
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string())).cast(kind)


def _strings(pa: Any, raw: bytes, count: int, size: int, kind: Any) -> Any:
    """Return *count* NUL-padded strings of *size* bytes without their padding; each distinct one is looked at once."""
    fixed = pa.Array.from_buffers(pa.binary(size), count, [None, pa.py_buffer(raw)])
    encoded = fixed.dictionary_encode()
    distinct = [value.partition(b"\0")[0] for value in encoded.dictionary.to_pylist()]
    if pa.types.is_string(kind):
        values = pa.array([value.decode("utf-8", "backslashreplace") for value in distinct], pa.string())
    else:
        values = pa.array(distinct, pa.binary())
    return pa.DictionaryArray.from_arrays(encoded.indices, values).dictionary_decode()


def _valid(text: str) -> str:
    """Return *text* with bytes that are no UTF-8 (kept as surrogates) as `\\xNN`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
