"""The reader of the rings, fed by a writer that keeps the rules, and by one that doesn't."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.process.ring import DISCARDED, PAGE, Ring, split

SIZE = 4096


class Writer:
    """Writes as the routines `reserve` and `submit` do."""

    def __init__(self) -> None:
        self.memory = bytearray(2 * PAGE + SIZE)
        self.ring = Ring(memoryview(self.memory), 0, SIZE)

    def producer(self) -> int:
        return int(struct.unpack_from("<Q", self.memory, PAGE)[0])

    def publish(self, position: int) -> None:
        struct.pack_into("<Q", self.memory, PAGE, position & (1 << 64) - 1)

    def write(self, record: bytes) -> bool:
        need = 8 + (len(record) + 7 & ~7)
        position = self.producer()
        place = position % SIZE
        pad = SIZE - place if need > SIZE - place else 0
        consumer = struct.unpack_from("<Q", self.memory, 0)[0]
        if position + pad + need - consumer > SIZE:
            return False
        if pad:
            struct.pack_into("<II", self.memory, 2 * PAGE + place, pad - 8 | DISCARDED, 0)
            position, place = position + pad, 0
        struct.pack_into("<II", self.memory, 2 * PAGE + place, len(record), 0)
        self.memory[2 * PAGE + place + 8 : 2 * PAGE + place + 8 + len(record)] = record
        self.publish(position + need)
        return True


@given(st.lists(st.one_of(st.binary(max_size=600), st.none()), max_size=60))
def test_what_was_written_comes_out_in_order(script: list[bytes | None]) -> None:
    writer, written, taken = Writer(), [], []
    for record in script:
        if record is None:
            taken += split(writer.ring.take())
        elif writer.write(record):
            written.append(record)
    taken += split(writer.ring.take())
    assert taken == written
    assert writer.ring.damaged == 0
    assert writer.ring.take() == b""


def test_a_full_ring_refuses_and_goes_on_after_it_was_read() -> None:
    writer = Writer()
    while writer.write(b"x" * 40):
        pass
    assert len(split(writer.ring.take())) == SIZE // 48
    assert writer.write(b"y" * 40)
    assert split(writer.ring.take()) == [b"y" * 40]


@given(st.integers(0, (1 << 64) - 1), st.binary(min_size=1, max_size=200))
def test_a_scribbled_ring_never_reads_out_of_bounds(position: int, content: bytes) -> None:
    writer = Writer()
    writer.write(b"first")
    writer.ring.take()
    writer.memory[2 * PAGE :] = (content * SIZE)[:SIZE]
    writer.publish(position)
    for record in split(writer.ring.take()):
        assert len(record) <= SIZE
    assert len(writer.ring.take()) <= SIZE
    writer.publish(writer.ring._place)
    assert writer.write(b"later")
    assert split(writer.ring.take())[-1:] in ([b"later"], [])
