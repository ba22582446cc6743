"""The ring's reader: on images made by hand, on hostile ones, and on a real ring filled by a real program."""

import struct
import threading
import time

import pytest
from bpf_assembly import (
    EXIT,
    KTIME,
    R0,
    R1,
    R2,
    R3,
    R6,
    R7,
    RING_DISCARD,
    RING_RESERVE,
    RING_SUBMIT,
    Code,
    call,
    jeqi,
    jnei,
    load,
    mov,
    movi,
    op,
    put,
    store,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.maps import KernelMap
from kprobes.engines.kernel.program import relocate
from kprobes.engines.kernel.ring import BUSY, DISCARDED, HEADER, Ring, committed, span_of
from kprobes.errors import FormatError
from kprobes.model.layout import MapLayout

PROG_TEST_RUN = 10
SOCKET_FILTER = 1


def record(content, flags=0):
    return struct.pack("<II", len(content) | flags, 0) + content.ljust(-(-len(content) // 8) * 8, b"\0")


def taken(image, reserved=None):
    extent, span = committed(memoryview(image).cast("I"), len(image) if reserved is None else reserved)
    span.data = image[:extent]
    return extent, span.records()


def test_equal_records_are_taken_as_one_span_with_a_stride():
    image = b"".join(record(bytes([n]) * 40) for n in range(20))
    extent, span = committed(memoryview(image).cast("I"), len(image))
    assert (extent, span.stride, span.length) == (len(image), 48, 40)
    assert taken(image)[1] == [bytes([n]) * 40 for n in range(20)]


def test_records_of_mixed_sizes_are_split_at_their_own_lengths():
    contents = [b"a" * n for n in (1, 8, 40, 3, 16)]
    assert taken(b"".join(map(record, contents)))[1] == contents


def test_discarded_records_are_passed_over():
    image = record(b"a" * 8) + record(b"b" * 8, DISCARDED) + record(b"c" * 8)
    assert taken(image) == (len(image), [b"a" * 8, b"c" * 8])


@pytest.mark.parametrize("before", [0, 1, 7, 8, 30])
def test_nothing_behind_a_busy_record_is_taken(before):
    image = record(b"x" * 40) * before + record(b"y" * 40, BUSY) + record(b"z" * 40)
    assert taken(image) == (48 * before, [b"x" * 40] * before)


def test_a_long_run_that_ends_in_other_records_is_taken_whole():
    contents = [b"x" * 40] * 100 + [b"y" * 16] * 400
    image = b"".join(map(record, contents))
    got, place = [], 0
    while place < len(image):
        extent, records = taken(image[place:])
        got += records
        place += extent
    assert got == contents


def test_a_batch_is_bounded_so_that_the_producer_gets_room():
    image = record(b"x" * 40) * 200_000
    extent, records = taken(image)
    assert 4 << 20 >= extent == len(records) * 48 > (4 << 20) - 48


def test_whole_records_of_mixed_sizes_are_a_span_of_their_own():
    contents = [b"a" * n for n in (8, 40, 3, 16)]
    image = b"".join(map(record, contents)) + record(b"c" * 8, DISCARDED)
    span = span_of(image)
    assert (span.records(), span.data) == (contents, image)
    for damaged in (image[:-8], image[:-4], record(b"y" * 8, BUSY)):
        with pytest.raises(FormatError):
            span_of(damaged)


@pytest.mark.parametrize("length", [9, 17, 0x3FFFFFFF])
def test_a_length_beyond_what_is_reserved_is_an_error(length):
    image = record(b"x" * 8) + struct.pack("<II", length, 0) + bytes(8)
    with pytest.raises(FormatError, match="does not fit"):
        taken(image)


@settings(max_examples=300)
@given(words=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 8, 16, 40])), min_size=2, max_size=64))
def test_whatever_stands_in_the_ring_the_reader_stays_inside(words):
    image = struct.pack(f"<{len(words) // 2 * 2}I", *words[: len(words) // 2 * 2])
    try:
        extent, records = taken(image)
    except FormatError:
        return
    assert 0 <= extent <= len(image)
    assert sum(map(len, records)) + HEADER * len(records) <= extent
    if extent == 0:
        assert words[0] & BUSY


class Producer:
    """A program that puts one record into a ring each time the kernel runs it for us."""

    def __init__(self, kernel_map, *, variety=False):
        code = Code().add(load(4, R6, R1, 0), call(KTIME), mov(R7, R0))  # r6 = the packet's length
        code.map(R1, "ring").add(movi(R2, 40), movi(R3, 0), call(RING_RESERVE))
        body = [store(8, R0, 0, R7), *(put(8, R0, at, at) for at in (8, 16, 24, 32)), mov(R1, R0), movi(R2, 0)]
        if variety:  # every record whose time is odd is discarded
            body += [op(0x57, R7, imm=1), jeqi(R7, 0, 3), call(RING_DISCARD), movi(R0, 0), EXIT]
        body += [call(RING_SUBMIT), movi(R0, 1), EXIT]
        code.add(jnei(R0, 0, 2), movi(R0, 0), EXIT, *body)
        instructions = relocate(code.program("uprobe"), {"ring": kernel_map.fd}, 0)
        self.fd, log = syscall.prog_load(syscall.ProgramRequest("ring", SOCKET_FILTER, instructions, "GPL"), 1, 1 << 16)
        assert self.fd >= 0, log
        self.packet = syscall.buffer(64)

    def run(self, count):
        """Run it *count* times without a break."""
        run = struct.pack("<IIIIQQII", self.fd, 0, 64, 0, syscall.address_of(self.packet), 0, count, 0) + bytes(24)
        assert syscall._bpf(PROG_TEST_RUN, syscall.buffer(run)) == 0


@pytest.fixture
def ring():
    size = 1 << 20
    kernel_map = KernelMap(MapLayout("ring", "ring", 0, 0, size))
    reader = Ring(kernel_map.fd, size)
    reader.map = kernel_map
    yield reader
    reader.close()
    reader.close()
    kernel_map.close()


def test_records_come_out_in_order_all_around_a_real_ring(ring):
    producer = Producer(ring.map)
    last = 0
    for burst in (1, 20_000, 333, 20_000, 20_000, 7, 20_000):  # the ring has room for 21,845
        producer.run(burst)
        got = []
        while (span := ring.poll_raw()).data:
            got += span.records()
        assert len(got) == burst
        times = [struct.unpack_from("<Q", content)[0] for content in got]
        assert times == sorted(times)
        assert times[0] >= last
        last = times[-1]
        assert all(content[8:] == struct.pack("<4Q", 8, 16, 24, 32) for content in got)


def test_discards_in_a_real_ring_are_not_seen(ring):
    Producer(ring.map, variety=True).run(5000)
    got = ring.poll_raw().records()
    assert 0 < len(got) < 5000
    assert all(content[0] % 2 == 0 for content in got)
    assert ring.pending == 0


def test_a_waiting_reader_is_woken_and_loses_nothing(ring):
    producer = Producer(ring.map)
    bursts = 60

    def produce():
        for _ in range(bursts):
            while ring.pending > 512 << 10:  # the reader may have to wait for a CPU
                time.sleep(0.001)
            producer.run(4000)
            time.sleep(0.002)

    thread = threading.Thread(target=produce)
    thread.start()
    got = 0
    while got < bursts * 4000:
        span = ring.poll_raw(60)
        assert span.data, f"nothing came for a minute after {got} records"
        got += len(span)
    thread.join()
    assert (got, ring.pending) == (bursts * 4000, 0)
