"""Tables made by machine code are those made by Python; whatever the bytes, nothing outside of them is touched."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.arch.x86_64 import transpose
from kprobes.engines.process.ring import HEADER, PAGE, Ring
from kprobes.events import arrow
from kprobes.events.decode import Decoder
from kprobes.events.rows import Rows
from kprobes.events.transpose import machine
from kprobes.model.layout import RECORD_HEADER, EventLayout, pack_fields

pyarrow = pytest.importorskip("pyarrow")

SOURCE = Path(__file__).parents[2] / "golden" / "events" / "transpose.s"
SITES = ("first", "second")
KINDS = [("int", 1), ("uint", 2), ("int", 4), ("hex", 8), ("bool", 1), ("bool", 4), ("site", 4)]
FIELDS = st.lists(
    st.one_of(st.sampled_from(KINDS), st.integers(1, 40).map(lambda size: ("str", size))), min_size=1, max_size=6
)


def layout(number: int, kinds: list[tuple[str, int]], prefix: str = "f") -> EventLayout:
    fields = [(f"{prefix}{at}", kind, size) for at, (kind, size) in enumerate(kinds)]
    placed, end = pack_fields(fields, RECORD_HEADER)
    return EventLayout(number, f"event{number}", end, placed)


def span(records: list[bytes]) -> bytes:
    return b"".join(struct.pack("<II", len(one), 0) + one + bytes(-len(one) % 8) for one in records)


def record(of: EventLayout, body: bytes) -> bytes:
    return struct.pack("<I", of.id) + body[: of.size - 4].ljust(of.size - 4, b"\0")


def by_python(monkeypatch: pytest.MonkeyPatch, layouts: list[EventLayout], raw: bytes, *, text: bool) -> Any:
    with monkeypatch.context() as patched:
        patched.setattr(arrow, "machine", lambda: None)
        return Decoder(layouts, SITES).to_arrow_raw(raw, text=text)


@pytest.mark.skipif(not shutil.which("as"), reason="needs binutils")
def test_the_code_is_what_its_source_assembles_to(tmp_path: Path) -> None:
    subprocess.run(["as", SOURCE, "-o", tmp_path / "out.o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", tmp_path / "out.o", tmp_path / "out.bin"], check=True)
    names = subprocess.run(["nm", tmp_path / "out.o"], capture_output=True, text=True, check=True).stdout
    addresses = {line.split()[2]: int(line.split()[0], 16) for line in names.splitlines()}
    assert (tmp_path / "out.bin").read_bytes() == transpose.CODE
    assert (addresses["uniform"], addresses["transpose"]) == (transpose.UNIFORM, transpose.TRANSPOSE)


@settings(max_examples=60)
@given(FIELDS, st.lists(st.binary(min_size=4, max_size=120), min_size=8, max_size=300), st.booleans())
def test_machine_code_makes_the_tables_that_python_makes(
    kinds: list[tuple[str, int]], bodies: list[bytes], text: bool
) -> None:
    one = layout(1, kinds)
    raw = span([record(one, body) for body in bodies])
    assert machine() is not None
    table = Decoder([one], SITES).to_arrow_raw(raw, text=text)
    table.validate(full=True)
    expected = by_python(pytest.MonkeyPatch(), [one], raw, text=text)
    assert table.schema == expected.schema
    assert table.to_pylist() == expected.to_pylist()


def test_runs_of_several_layouts_have_nothing_where_a_field_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = layout(1, [("hex", 8), ("str", 16)]), layout(2, [("int", 4)], "g")
    raw = span([record(one, b"\0\0\0\0" + bytes([at] * 12)) for at in range(40)] + [record(two, bytes(8))] * 40)
    decoder = Decoder([one, two], SITES)
    table = decoder.to_arrow_raw(raw)
    table.validate(full=True)
    assert table.to_pylist() == by_python(monkeypatch, [one, two], raw, text=False).to_pylist()
    assert table["event"].to_pylist() == ["event1"] * 40 + ["event2"] * 40
    assert isinstance(decoder.tables()._plans[2], Rows)


def test_long_texts_give_their_memory_back() -> None:
    one = layout(1, [("str", 4096)])
    table = Decoder([one], SITES).to_arrow_raw(span([record(one, b"\0\0\0\0short")] * 500))
    assert table["f0"].to_pylist() == [b"short"] * 500
    assert table.nbytes < 500 * 40


class Filled:
    """A ring with records in it that wrap around its end."""

    def __init__(self, raw: bytes, size: int, start: int) -> None:
        self.memory = bytearray(2 * PAGE + size)
        struct.pack_into("<Q", self.memory, 0, start)
        struct.pack_into("<Q", self.memory, PAGE, start + len(raw))
        for at, byte in enumerate(raw):
            self.memory[2 * PAGE + (start + at) % size] = byte
        self.ring = Ring(memoryview(self.memory), 0, size)


@pytest.mark.parametrize("count", [1, 7, 20, 127, 250])
def test_a_ring_is_drained_in_order_with_room_given_back_after_each_piece(count: int) -> None:
    one = layout(1, [("hex", 8)])
    raw = span([record(one, struct.pack("<IQ", 0, at)) for at in range(count)])
    size = 8192
    filled = Filled(raw, size, size - len(raw) // 2 // 24 * 24 if count > 1 else 0)
    decoder = Decoder([one], SITES)
    places: list[int] = []

    def read(view: memoryview, limit: int) -> tuple[Any, int]:
        places.append(struct.unpack_from("<Q", filled.memory)[0])
        return decoder.tables().of_span(view, limit)

    tables = filled.ring.drain(read)
    assert [row for table in tables for row in table["f0"].to_pylist()] == list(range(count))
    assert len(set(places)) == len(places)
    assert len(places) >= len(raw) // (size // 4)
    assert filled.ring.pending == 0
    assert decoder.damaged == filled.ring.damaged == 0


@settings(max_examples=100)
@given(st.binary(max_size=512), st.integers(0, 512), st.integers(0, 2**64 - 1), st.integers(0, 40))
def test_a_ring_full_of_rubbish_is_drained(rubbish: bytes, start: int, produced: int, alike: int) -> None:
    one = layout(1, [("str", 5), ("site", 4), ("hex", 8)])
    fine = span([record(one, rubbish.ljust(40, b"\xff"))] * alike)
    filled = Filled((fine + rubbish)[:2048], 2048, start * 8)
    if produced % 2:
        struct.pack_into("<Q", filled.memory, PAGE, produced)
    for table in filled.ring.drain(Decoder([one], SITES).tables().of_span):
        table.validate(full=True)
    assert filled.ring.pending < HEADER
