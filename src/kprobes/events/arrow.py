"""Events as Arrow tables. The only place here that knows pyarrow, which is optional and loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.errors import UnsupportedError
from kprobes.events.columns import column_names, columns, strided
from kprobes.events.rows import SIGNED, SITE, WIDTHS, plan, type_of, valid
from kprobes.events.transpose import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.events.decode import Decoder, Piece, Run
    from kprobes.events.record import Codec
    from kprobes.model.layout import Field

# Bytes that become one table: offsets of texts have 32 bits.
_LONGEST = 1 << 30


class Tables:
    """Makes tables of the records that *decoder* decodes: one schema for all. *text*: strings are text, not bytes.

    Raises:
        UnsupportedError: pyarrow isn't installed.
    """

    def __init__(self, decoder: Decoder, *, text: bool) -> None:
        self._pa = load_pyarrow()
        self._decoder = decoder
        self._codecs = decoder.codecs
        self._schema = _schema(self._pa, self._codecs, text=text)
        self._machine = machine()
        self._plans = {
            codec.layout.id: plan(self._pa, codec, self._codecs, self._schema, text=text) for codec in self._codecs
        }

    def of(self, pieces: Sequence[Piece], buffer: Any = None) -> Any:
        """Return *pieces* as one `pyarrow.Table`; those that are runs lie in *buffer*, if that is given."""
        parts: list[Any] = []
        loose: list[Piece] = []
        for piece in pieces:
            made = None if isinstance(piece, list) else self._of_run(piece, buffer)
            if made is None:
                loose.append(piece)
                continue
            if any(loose):
                parts.append(_from_columns(self._pa, columns(loose, self._codecs), self._schema))
            loose = []
            parts.append(made)
        if any(loose) or not parts:
            parts.append(_from_columns(self._pa, columns(loose, self._codecs), self._schema))
        return parts[0] if len(parts) == 1 else self._pa.concat_tables(parts)

    def of_span(self, view: memoryview, limit: int = 1 << 62) -> tuple[Any, int]:
        """Return the records at the front of *view*, raw bytes of a ring, and how many bytes they take: all, or where
        the first ends that reaches *limit*. The bytes may change meanwhile: such records then are wrong, no more."""
        if self._machine is None:
            pieces, used = self._decoder.pieces_until(memoryview(bytes(view)), limit)
            return self.of(pieces), used
        uniform = self._machine.uniform
        buffer = self._pa.py_buffer(view)
        base = buffer.address
        pieces, used = self._decoder.pieces_until(
            view, min(limit, _LONGEST), lambda at, stride, count, head: uniform(base + at, stride, count, head)
        )
        return self.of(pieces, buffer), used

    def _of_run(self, run: Run, buffer: Any) -> Any:
        found = self._plans[run.codec.layout.id]
        if found is not None and self._machine is not None:
            at = (buffer or self._pa.py_buffer(run.data)).address + run.start + run.skip
            most = _LONGEST // run.stride
            rows = [
                found.table(self._machine, at + begin * run.stride, run.stride, min(most, run.length - begin))
                for begin in range(0, run.length, most)
            ]
            return rows[0] if len(rows) == 1 else self._pa.concat_tables(rows)
        return _from_run(self._pa, run, self._schema) if len(self._codecs) == 1 else None


def load_pyarrow() -> Any:
    """Return the module.

    Raises:
        UnsupportedError: it isn't installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise UnsupportedError("Arrow tables need pyarrow", hint="pip install kprobes[arrow]") from error
    return pyarrow


def _schema(pa: Any, codecs: Sequence[Codec], *, text: bool) -> Any:
    """Return the schema: a name that has different types in different layouts becomes a string."""
    types: dict[str, Any] = {}
    for codec in codecs:
        for field in codec.layout.fields:
            found = type_of(pa, field, text=text)
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
            values = [v if v is None else valid(str(v)) for v in values]
        elif pa.types.is_dictionary(field.type):
            arrays.append(pa.array([v if v is None else valid(v) for v in values], pa.string()).dictionary_encode())
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
            arrays.append(pa.DictionaryArray.from_arrays(indices, pa.array([valid(layout.name)])))
        else:
            arrays.append(_array(pa, run, field or SITE, column.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(pa: Any, run: Run, field: Field, kind: Any) -> Any:
    if field.kind == "site":
        return _sites(pa, run, field, kind)
    raw = strided(run, field.offset, field.size)
    if field.kind == "str":
        return _strings(pa, raw, run.length, field.size, kind)
    if field.size not in WIDTHS:
        signed = field.kind in SIGNED
        size = field.size
        values = [int.from_bytes(raw[at : at + size], "little", signed=signed) for at in range(0, len(raw), size)]
        return pa.array(values, kind)
    if field.kind == "bool":
        width = getattr(pa, f"uint{8 * field.size}")()
        numbers = pa.Array.from_buffers(width, run.length, [None, pa.py_buffer(raw)])
        return numbers.cast(pa.bool_())
    return pa.Array.from_buffers(kind, run.length, [None, pa.py_buffer(raw)])


def _sites(pa: Any, run: Run, field: Field, kind: Any) -> Any:
    names = [valid(name) for name in run.codec.event._sites]
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
