"""Events as columns and as Arrow tables."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.errors import UnsupportedError
from kprobes.events.decode import Decoder
from kprobes.model.layout import RECORD_HEADER, EventLayout, pack_fields

pyarrow = pytest.importorskip("pyarrow")


def layout(number: int, name: str, fields: list[tuple[str, str, int]]) -> EventLayout:
    placed, end = pack_fields(fields, RECORD_HEADER)
    return EventLayout(number, name, end, placed)


WIDE = layout(
    1,
    "wide",
    [
        ("time", "uint", 8),
        ("code", "int", 2),
        ("comm", "str", 5),
        ("path", "str", 16),
        ("flag", "bool", 8),
        ("at", "hex", 8),
        ("place", "site", 4),
    ],
)
OTHER = layout(2, "other", [("time", "uint", 8), ("size", "int", 8)])
SITES = ("first", "second")


def wide(time: int, comm: bytes = b"cat", path: bytes = b"/etc", site: int = 0) -> bytes:
    values = {"time": time, "code": -3, "comm": comm, "path": path, "flag": time % 2, "at": 4096, "place": 1}
    raw = bytearray(WIDE.size)
    raw[:8] = struct.pack("<II", 1, site)
    for field in WIDE.fields:
        value = values[field.name]
        data = value if isinstance(value, bytes) else value.to_bytes(field.size, "little", signed=field.kind == "int")
        raw[field.offset : field.offset + len(data)] = data
    return bytes(raw)


def other(time: int, size: int) -> bytes:
    return struct.pack("<IIQq", 2, 1, time, size)


def ring(*records: bytes) -> bytes:
    return b"".join(struct.pack("<II", len(r), 0) + r + bytes(-len(r) % 8) for r in records)


def test_columns_of_a_run_equal_its_events() -> None:
    decoder = Decoder([WIDE], SITES)
    records = [wide(i, comm=b"c%d" % (i % 3), site=i % 2) for i in range(50)]
    table = decoder.columns(records)
    assert list(table) == ["event", "site", "time", "code", "comm", "path", "flag", "at", "place"]
    assert table["event"] == ["wide"] * 50
    assert table["site"] == ["first", "second"] * 25
    events = decoder.decode(records)
    for name in events[0].fields:
        assert table[name] == [event[name] for event in events]


def test_columns_of_several_layouts_hold_none_where_an_event_lacks_a_field() -> None:
    table = Decoder([WIDE, OTHER], SITES).columns([wide(1), other(2, -5), wide(3)])
    assert table["event"] == ["wide", "other", "wide"]
    assert table["time"] == [1, 2, 3]
    assert table["size"] == [None, -5, None]
    assert table["comm"] == ["cat", None, "cat"]


def test_a_field_named_site_takes_the_column() -> None:
    shadow = layout(3, "shadow", [("site", "int", 8)])
    record = struct.pack("<IIq", 3, 0, 77)
    assert Decoder([shadow], SITES).columns([record, record]) == {"event": ["shadow"] * 2, "site": [77, 77]}
    assert Decoder([shadow, OTHER], SITES).columns([record, other(1, 1)])["site"] == [77, None]


def test_no_records_give_empty_columns() -> None:
    assert Decoder([OTHER], SITES).columns([]) == {"event": [], "site": [], "time": [], "size": []}


def test_an_arrow_table_has_exact_types_and_values() -> None:
    decoder = Decoder([WIDE], SITES)
    records = [wide(2**63 + i, comm=b"a\xff\0xx", site=i % 2) for i in range(20)]
    table = decoder.to_arrow(records)
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["time"] == "uint64"
    assert kinds["code"] == "int16"
    assert kinds["comm"] == "binary"
    assert kinds["flag"] == "bool"
    assert table["time"].to_pylist() == [2**63 + i for i in range(20)]
    assert table["code"].to_pylist() == [-3] * 20
    assert table["comm"].to_pylist() == [b"a\xff"] * 20
    assert table["flag"].to_pylist() == [False, True] * 10
    assert table["site"].to_pylist() == ["first", "second"] * 10
    assert table["place"].to_pylist() == ["second"] * 20
    assert table["event"].to_pylist() == ["wide"] * 20
    table.validate(full=True)


def test_arrow_text_escapes_what_is_no_utf8() -> None:
    table = Decoder([WIDE], SITES).to_arrow([wide(1, comm=b"a\xff"), wide(2, comm=b"\xc3\xa9")], text=True)
    assert table["comm"].to_pylist() == ["a\\xff", "é"]


def test_the_schema_does_not_depend_on_the_records() -> None:
    decoder = Decoder([WIDE, OTHER], SITES)
    empty, run, mixed = decoder.to_arrow([]), decoder.to_arrow([wide(1)] * 9), decoder.to_arrow([wide(1), other(2, 3)])
    assert empty.schema == run.schema == mixed.schema
    one = Decoder([WIDE], SITES)
    assert one.to_arrow([]).schema == one.to_arrow([wide(1)] * 9).schema
    assert one.to_arrow([wide(1)] * 9).schema == one.to_arrow([wide(1), b"broken", wide(2)]).schema


def test_one_name_with_two_types_becomes_a_string() -> None:
    clash = layout(3, "clash", [("size", "str", 8)])
    record = struct.pack("<II8s", 3, 0, b"big")
    assert Decoder([OTHER, clash], SITES).to_arrow([other(1, 5), record])["size"].to_pylist() == ["5", "big"]


def test_site_numbers_that_are_none_do_not_leave_the_dictionary() -> None:
    table = Decoder([WIDE], SITES).to_arrow([wide(1, site=2**32 - 1), wide(2, site=1)])
    table.validate(full=True)
    assert table["site"].to_pylist() == ["?", "second"]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=5)), max_size=40))
def test_arrow_from_a_raw_span_equals_the_columns(rows: list[tuple[int, bytes]]) -> None:
    decoder = Decoder([WIDE], SITES)
    records = [wide(time, comm) for time, comm in rows]
    table, expected = decoder.to_arrow_raw(ring(*records)), decoder.columns(records)
    assert table["time"].to_pylist() == expected["time"]
    assert [c.decode("utf-8", "surrogateescape") for c in table["comm"].to_pylist()] == expected["comm"]


def test_without_pyarrow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedError) as caught:
        Decoder([OTHER], SITES).to_arrow([])
    assert "kprobes[arrow]" in caught.value.hint
