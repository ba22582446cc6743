"""Messages between the controller and a guest: a JSON head and a blob of bytes, both after their lengths.

    u32 length of the head, u32 length of the blob, head (UTF-8 JSON object), blob

Used on both sides. Lengths are bounded, since neither side trusts the other with its memory.
"""

from __future__ import annotations

import struct
from json import JSONDecodeError, dumps, loads

from kprobes.errors import FormatError

PROTOCOL = 1
LENGTHS = struct.Struct("<II")
MAX_HEAD = 16 << 20
MAX_BLOB = 256 << 20

Head = dict[str, object]


def encode_frame(head: Head, blob: bytes | memoryview = b"") -> bytes:
    """Return one message as bytes."""
    text = dumps(head, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")
    return b"".join((LENGTHS.pack(len(text), len(blob)), text, blob))


class FrameReader:
    """Turns a byte stream back into messages: `feed` bytes, then take what `frames` has."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Head, bytes]]:
        """Take *data* and return the messages that are complete now.

        Raises:
            FormatError: what came is no message; the stream can't be used any further.
        """
        self._buffer += data
        frames = []
        position = 0
        while len(self._buffer) - position >= LENGTHS.size:
            head_size, blob_size = LENGTHS.unpack_from(self._buffer, position)
            if not 2 <= head_size <= MAX_HEAD or blob_size > MAX_BLOB:
                raise FormatError("a message of the guest's channel has an impossible length")
            start = position + LENGTHS.size
            end = start + head_size + blob_size
            if end > len(self._buffer):
                break
            with memoryview(self._buffer) as view:
                frames.append(
                    (_parse_head(bytes(view[start : start + head_size])), bytes(view[start + head_size : end]))
                )
            position = end
        del self._buffer[:position]
        return frames


def _parse_head(text: bytes) -> Head:
    try:
        head = loads(text.decode("utf-8", "surrogateescape"))
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError("a message of the guest's channel is not JSON") from error
    if not isinstance(head, dict):
        raise FormatError("a message of the guest's channel is not an object")
    return head


def encode_records(records: list[bytes]) -> bytes:
    """Return ring records as one blob: u32 count, u32 length of each, the records."""
    count = len(records)
    return b"".join((struct.pack(f"<I{count}I", count, *map(len, records)), *records))


def decode_records(blob: bytes) -> list[bytes]:
    """Return the records that `encode_records` packed.

    Raises:
        FormatError: the blob is malformed.
    """
    if len(blob) < 4:
        raise FormatError("a batch of records is cut short")
    count = struct.unpack_from("<I", blob)[0]
    position = 4 + 4 * count
    if position > len(blob):
        raise FormatError("a batch of records is cut short")
    records = []
    for length in struct.unpack_from(f"<{count}I", blob, 4):
        records.append(blob[position : position + length])
        position += length
    if position != len(blob):
        raise FormatError("a batch of records has the wrong length")
    return records
