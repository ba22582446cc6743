"""Messages survive any cut of the stream, and nonsense is refused."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.engines.vm.frames import (
    MAX_BLOB,
    MAX_HEAD,
    FrameReader,
    decode_records,
    encode_frame,
    encode_records,
)
from kprobes.errors import FormatError

HEADS = st.dictionaries(st.text(max_size=5), st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=9), max_size=4)


@settings(max_examples=40)
@given(st.lists(st.tuples(HEADS, st.binary(max_size=40)), max_size=6), st.data())
def test_messages_come_back_however_the_stream_is_cut(messages, data):
    stream = b"".join(encode_frame(head, blob) for head, blob in messages)
    reader = FrameReader()
    found = []
    while stream:
        count = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:count])
        stream = stream[count:]
    assert found == messages


def test_odd_bytes_in_text_survive():
    path = b"/tmp/\xff\xfe".decode("utf-8", "surrogateescape")
    assert FrameReader().feed(encode_frame({"path": path})) == [({"path": path}, b"")]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<II", MAX_HEAD + 1, 0),
        struct.pack("<II", 2, MAX_BLOB + 1),
        struct.pack("<II", 0, 0),
        struct.pack("<II", 2, 0) + b"[]",
        struct.pack("<II", 2, 0) + b"{x",
        struct.pack("<II", 3, 0) + b"\xff\xff\xff",
        struct.pack("<II", 40000, 0) + b"[" * 40000,
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(FormatError):
        FrameReader().feed(data)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_for(noise):
    with contextlib.suppress(FormatError):
        FrameReader().feed(noise)


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_records_come_back(records):
    assert decode_records(encode_records(records)) == records


@given(st.binary(max_size=60))
def test_malformed_records_are_refused(blob):
    try:
        records = decode_records(blob)
    except FormatError:
        return
    assert encode_records(records) == blob
