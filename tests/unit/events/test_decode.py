"""Ring records to events."""

from __future__ import annotations

import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.errors import FormatError
from kprobes.events.decode import BUSY, DISCARDED, Decoder
from kprobes.events.value import Address, StackId, SymbolAddress, UserStackId
from kprobes.model.layout import RECORD_HEADER, EventLayout, Field, pack_fields


def layout(number: int, name: str, fields: list[tuple[str, str, int]], template: str = "") -> EventLayout:
    placed, end = pack_fields(fields, RECORD_HEADER)
    return EventLayout(number, name, end, placed, template)


OPENED = layout(1, "opened", [("time", "uint", 8), ("pid", "uint", 4), ("fd", "int", 4), ("comm", "str", 16)])
SMALL = layout(2, "small", [("value", "int", 8)])
SITES = ("do_open", "do_close")


def opened(time: int = 7, pid: int = 42, fd: int = -1, comm: bytes = b"cat", site: int = 0) -> bytes:
    return struct.pack("<IIQIi16s", 1, site, time, pid, fd, comm)


def small(value: int, site: int = 1) -> bytes:
    return struct.pack("<IIq", 2, site, value)


def ring(*records: bytes, flags: int = 0) -> bytes:
    return b"".join(struct.pack("<II", len(r) | flags, 0) + r + bytes(-len(r) % 8) for r in records)


def test_a_field_is_an_attribute_and_an_item() -> None:
    (event,) = Decoder([OPENED], SITES).decode([opened()])
    assert (event.time, event.pid, event.fd, event.comm) == (7, 42, -1, "cat")
    assert event["pid"] == 42
    assert event.name == "opened"
    assert event.site == "do_open"
    assert event.fields == event._asdict() == {"time": 7, "pid": 42, "fd": -1, "comm": "cat"}
    assert list(event) == [7, 42, -1, "cat"]
    assert len(event) == 4
    assert repr(event) == "opened(time=7, pid=42, fd=-1, comm='cat')"


def test_an_unknown_field_is_an_attribute_error_and_a_key_error() -> None:
    (event,) = Decoder([OPENED], SITES).decode([opened()])
    with pytest.raises(AttributeError):
        _ = event.ppid
    with pytest.raises(KeyError):
        _ = event["ppid"]


def test_kinds_become_types_that_say_how_to_show_them() -> None:
    kinds = layout(
        3,
        "kinds",
        [
            ("pointer", "hex", 8),
            ("yes", "bool", 8),
            ("where", "symbol", 8),
            ("kernel", "stack", 8),
            ("user", "user_stack", 8),
            ("place", "site", 4),
            ("wide", "int", 16),
            ("tiny", "int", 1),
        ],
    )
    raw = struct.pack("<IIQQQqqI", 3, 0, 0xFFFF888000001000, 1, 0xFFFFFFFF81000000, 5, -14, 1)
    raw += bytes(4) + (-3).to_bytes(16, "little", signed=True) + b"\xff"
    raw += bytes(kinds.size - len(raw))
    (event,) = Decoder([kinds], SITES).decode([raw])
    assert isinstance(event.pointer, Address)
    assert str(event.pointer) == f"{event.pointer}" == "0xffff888000001000"
    assert event.yes is True
    assert isinstance(event.where, SymbolAddress)
    assert event.kernel == StackId(5)
    assert type(event.kernel) is StackId
    assert type(event.user) is UserStackId
    assert event.user == -14
    assert event.place == "do_close"
    assert event.wide == -3
    assert event.tiny == -1


def test_bytes_that_are_no_utf8_come_back_exactly() -> None:
    (event,) = Decoder([OPENED], SITES).decode([opened(comm=b"a\xffb\x9b\xc3\xa9\0junk")])
    assert event.comm.encode("utf-8", "surrogateescape") == b"a\xffb\x9b\xc3\xa9"


def test_a_log_renders_its_template() -> None:
    log = layout(4, "log", [("who", "str", 8), ("bytes", "int", 8), ("at", "hex", 8)], "{who} read {bytes} at {at}")
    raw = struct.pack("<II8sqQ", 4, 0, b"cat", 512, 0x10)
    (event,) = Decoder([log], SITES).decode([raw])
    assert event.text == "cat read 512 at 0x10"


def test_a_template_with_numbered_places_renders_too() -> None:
    log = layout(4, "log", [("a b", "int", 8)], "got {0}")
    (event,) = Decoder([log], SITES).decode([struct.pack("<IIq", 4, 0, 3)])
    assert event.text == "got 3"


def test_an_event_without_template_renders_its_fields() -> None:
    (event,) = Decoder([SMALL], SITES).decode([small(3)])
    assert event.text == "value=3"


def test_a_field_may_be_called_name_but_layout_fields_and_site_stay_the_events_own() -> None:
    shadow = layout(5, "shadow", [("name", "str", 8), ("site", "int", 8), ("layout", "int", 8), ("count", "int", 8)])
    raw = struct.pack("<II8sqqq", 5, 1, b"inode", 9, 8, 7)
    (event,) = Decoder([shadow], SITES).decode([raw])
    assert (event.name, event.site, event.count) == ("inode", "do_close", 7)
    assert event.layout is shadow
    assert (event["site"], event["layout"]) == (9, 8)


def test_a_log_of_a_field_called_text_still_has_its_line() -> None:
    log = layout(4, "log", [("text", "str", 8)], "got {text}")
    (event,) = Decoder([log], SITES).decode([struct.pack("<II8s", 4, 0, b"it")])
    assert event.text == "got it"
    bare = layout(4, "bare", [("text", "str", 8)])
    (event,) = Decoder([bare], SITES).decode([struct.pack("<II8s", 4, 0, b"it")])
    assert event.text == "it"


def test_events_of_several_layouts_keep_their_order() -> None:
    records = [small(1), opened(2), small(3), small(4), opened(5)]
    events = Decoder([OPENED, SMALL], SITES).decode(records)
    assert [e.value if e.name == "small" else e.time for e in events] == [1, 2, 3, 4, 5]


def test_layouts_of_one_size_are_told_apart() -> None:
    twin = layout(6, "twin", [("value", "uint", 8)])
    records = [small(-1), struct.pack("<IIQ", 6, 0, 5), small(-2)]
    events = Decoder([SMALL, twin], SITES).decode(records)
    assert [(e.name, e.value) for e in events] == [("small", -1), ("twin", 5), ("small", -2)]
    raw = Decoder([SMALL, twin], SITES).decode_raw(ring(*records * 50))
    assert raw == events * 50


def test_records_that_fit_no_layout_are_counted_and_skipped() -> None:
    decoder = Decoder([OPENED], SITES)
    events = decoder.decode([opened(1), small(9), b"", b"\1", opened(2)[:-1], opened(3)])
    assert [e.time for e in events] == [1, 3]
    assert decoder.damaged == 4


def test_a_site_number_that_is_none_is_a_question_mark() -> None:
    (event,) = Decoder([OPENED], SITES).decode([opened(site=2**32 - 1)])
    assert event.site == "?"


@pytest.mark.parametrize("count", [1, 7, 8, 64, 1000, 5000])
def test_a_raw_span_gives_what_its_records_give(count: int) -> None:
    records = [opened(i, comm=str(i).encode()) for i in range(count)]
    decoder = Decoder([OPENED, SMALL], SITES)
    assert decoder.decode_raw(ring(*records)) == decoder.decode(records)
    assert decoder.damaged == 0


def test_discarded_records_are_left_out_and_a_busy_one_ends_the_walk() -> None:
    decoder = Decoder([OPENED, SMALL], SITES)
    span = ring(opened(1)) + ring(opened(2), flags=DISCARDED) + ring(small(3)) + ring(opened(4), flags=BUSY)
    events = decoder.decode_raw(span + ring(opened(5)))
    assert [e.fields for e in events] == [decoder.decode([opened(1)])[0].fields, {"value": 3}]
    assert decoder.damaged == 0


def test_a_length_beyond_the_span_ends_the_walk_and_is_counted() -> None:
    decoder = Decoder([OPENED], SITES)
    events = decoder.decode_raw(ring(opened(1)) + struct.pack("<II", DISCARDED - 1, 0) + opened(2))
    assert [e.time for e in events] == [1]
    assert decoder.damaged == 1


def test_records_longer_than_their_layout_are_read_by_their_length() -> None:
    padded = [opened(i) + bytes(5) for i in range(100)]
    events = Decoder([OPENED], SITES).decode_raw(ring(*padded))
    assert [e.time for e in events] == list(range(100))


@given(st.lists(st.one_of(st.integers(0, 2**40).map(opened), st.integers(-5, 5).map(small), st.binary(max_size=24))))
def test_mixed_and_broken_records_decode_alike_from_list_and_ring(records: list[bytes]) -> None:
    one, two = Decoder([OPENED, SMALL], SITES), Decoder([OPENED, SMALL], SITES)
    assert one.decode(records * 20) == two.decode_raw(ring(*records * 20))
    assert one.damaged == two.damaged


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(span: bytes) -> None:
    decoder = Decoder([OPENED, SMALL], SITES)
    decoder.decode_raw(span)
    decoder.decode_raw(ring(*[opened(1)] * 20) + span)
    decoder.decode([span, span])


@pytest.mark.parametrize(
    "fields",
    [
        (Field("a", "int", 8, 8), Field("b", "int", 12, 4)),
        (Field("a", "int", 0, 8),),
        (Field("a", "str", 8, 100),),
        (Field("a", "int", 8, 0),),
        (Field("a", "int", 8, 4), Field("a", "int", 12, 4)),
    ],
)
def test_a_layout_whose_fields_overlap_or_leave_the_record_is_refused(fields: tuple[Field, ...]) -> None:
    with pytest.raises(FormatError):
        Decoder([EventLayout(1, "bad", 24, fields)], SITES)


def test_a_huge_layout_is_refused() -> None:
    with pytest.raises(FormatError):
        Decoder([EventLayout(1, "bad", 1 << 40, ())], SITES)


def test_events_travel_by_pickle() -> None:
    events = Decoder([OPENED], SITES).decode([opened(1), opened(2)])
    again = pickle.loads(pickle.dumps(events))
    assert again == events
    assert again[0].site == "do_open"


@pytest.mark.parametrize(
    ("tail", "damaged"),
    [
        (b"", 0),
        (struct.pack("<II", DISCARDED, 0), 0),
        (struct.pack("<II", 0, 0), 1),
        (struct.pack("<II", BUSY, 0), 0),
        (struct.pack("<II", BUSY | 40, 0), 0),
        (b"\0\0\0", 1),
    ],
)
def test_what_is_left_at_the_end_of_a_span_is_counted_unless_the_ring_can_leave_it(tail: bytes, damaged: int) -> None:
    decoder = Decoder([SMALL], SITES)
    assert len(decoder.decode_raw(ring(small(1)) + tail)) == 1
    assert decoder.damaged == damaged
