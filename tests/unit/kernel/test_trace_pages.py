"""Pages of the kernel's trace buffer, and records made of its events; the pages are those of real kernels."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.kernel.trace_format import Converter, TraceFormat, parse_format
from kprobes.engines.kernel.trace_pages import Page
from kprobes.errors import FormatError
from kprobes.events.decode import Decoder
from kprobes.grammar.events import parse
from kprobes.model.definition import Definition
from kprobes.model.fetched import event_layout

GOLDEN = Path(__file__).parents[2] / "golden" / "ftrace"
KERNELS = ("5.10", "6.1", "6.12", "7.2")


def page(*events: bytes, time: int = 1000, flags: int = 0, behind: bytes = b"") -> bytes:
    body = b"".join(events)
    return struct.pack("<QQ", time, len(body) | flags) + body + behind


def event(kind: int, delta: int, data: bytes = b"") -> bytes:
    return struct.pack("<I", kind | delta << 5) + data


def times(data: bytes) -> list[int]:
    return [time for time, _, _ in Page(data).events]


def test_times_add_up_from_that_of_the_page() -> None:
    assert times(page(event(1, 0, b"aaaa"), event(2, 5, b"bbbbbbbb"), event(1, 7, b"cccc"))) == [1000, 1005, 1012]


def test_long_data_has_its_length_in_a_word() -> None:
    made = Page(page(event(0, 3, struct.pack("<I", 4 + 120) + b"x" * 120), event(1, 1, b"dddd")))
    assert [(time, end - start) for time, start, end in made.events] == [(1003, 120), (1004, 4)]
    _, start, end = made.events[0]
    assert made.data[start:end] == b"x" * 120


def test_a_long_time_and_an_absolute_time_have_words_of_their_own() -> None:
    extend, stamp = event(30, 1, struct.pack("<I", 2)), event(31, 9, struct.pack("<I", 100))
    assert times(page(extend, event(1, 1, b"aaaa"))) == [1000 + (2 << 27) + 1 + 1]
    assert times(page(stamp, event(1, 1, b"aaaa"))) == [(100 << 27) + 9 + 1]


def test_an_absolute_time_keeps_the_bits_it_has_no_room_for() -> None:
    high = 3 << 59
    assert times(page(event(31, 9, struct.pack("<I", 0)), event(1, 0, b"aaaa"), time=high + 5)) == [high + 9]


def test_discarded_events_pass_their_time_on_and_the_rest_of_a_page_is_nothing() -> None:
    discarded = event(29, 4, struct.pack("<I", 8) + b"yyyy")
    assert times(page(discarded, event(1, 1, b"aaaa"), event(29, 0), b"\xff" * 40)) == [1005]


def test_lost_events_are_told_with_their_number_where_the_kernel_counted() -> None:
    one = event(1, 0, b"aaaa")
    assert Page(page(one)).lost == 0
    assert Page(page(one, flags=1 << 31)).lost == -1
    assert Page(page(one, flags=3 << 30, behind=struct.pack("<Q", 77))).lost == 77


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 15, page(event(5, 0, b"aaaa")), page(event(0, 0)), page(event(30, 0)), page()[:8] + b"\xff" * 8],
)
def test_a_damaged_page_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Page(data)


@given(st.binary(max_size=200), st.integers(0, 1 << 40))
def test_any_bytes_are_a_page_or_refused(body: bytes, time: int) -> None:
    try:
        made = Page(struct.pack("<QQ", time, len(body)) + body)
    except FormatError:
        return
    assert all(16 <= start <= end <= 16 + len(body) for _, start, end in made.events)


def formats(kernel: str) -> dict[str, TraceFormat]:
    texts = (GOLDEN / kernel / "formats").read_text().split("name: ")[1:]
    return {text.partition("\n")[0]: parse_format(text) for text in texts}


def converter(line: str, kernel: str) -> tuple[Converter, Decoder, TraceFormat]:
    definition = parse(line, kernel)
    assert isinstance(definition, Definition)
    layout = event_layout(definition)
    given_format = formats(kernel)[definition.event]
    return Converter(layout, 7, given_format), Decoder((layout,), [str(number) for number in range(8)]), given_format


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_event_of_the_kernels_becomes_a_record_of_ours(kernel: str) -> None:
    line = "p:cap/arrays vfs_read bytes=+0(%di):x8[4] words=+0($stack):x64[2] signed=+0(%di):s16[3]"
    make, decoder, shape = converter(line, kernel)
    data = struct.pack("<HBBiQ4B2Q3h", shape.number, 0, 0, 42, 0xFFFF, 1, 2, 3, 4, 5, 1 << 63, -1, 2, -3)
    (made,) = decoder.decode([make.record(b"??" + data, 2, (123, 1, 41, b"cat"))])
    assert made.site == "7"
    assert list(made) == [123, 1, 41, 42, "cat", 0xFFFF, 1, 2, 3, 4, 5, 1 << 63, -1, 2, -3]


def test_strings_are_cut_to_their_room_and_faults_are_told() -> None:
    make, decoder, shape = converter("p:cap/opens do_sys_openat2 dfd=%di filename=+0(%si):string", "6.12")
    for text, shown in ((b"/etc/passwd\0", "/etc/passwd"), (b"x" * 400 + b"\0", "x" * 255), (b"", "(fault)")):
        head = struct.pack("<HBBiQQI", shape.number, 0, 0, 42, 1, 3, 28 | len(text) << 16)
        (made,) = decoder.decode([make.record(head + text, 0, (1, 0, 1, b"cat"))])
        assert (made["dfd"], made["filename"]) == (3, shown)


def test_a_format_that_lacks_a_field_or_has_another_type_is_refused() -> None:
    shape = formats("6.1")["opens"]
    for line in ("p:opens vfs_read other=%di", "p:opens vfs_read filename=%di", "p:opens vfs_read dfd=+0(%di):string"):
        definition = parse(line, "6.1")
        assert isinstance(definition, Definition)
        with pytest.raises(FormatError):
            Converter(event_layout(definition), 0, shape)
    with pytest.raises(FormatError):
        parse_format("name: nothing\nID: 5\n")
