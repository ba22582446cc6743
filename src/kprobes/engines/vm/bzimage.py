"""What is inside a bzImage: its release, and the uncompressed kernel.

An emulated CPU takes more than a second to decompress its own kernel; the host does it in a quarter of one, once. QEMU
starts the uncompressed ELF file directly where the kernel has a PVH entry (CONFIG_PVH).

Source: Documentation/arch/x86/boot.rst of the kernel; include/xen/interface/elfnote.h for the entry's note.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kprobes.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_KERNEL = 1 << 30
LZ4_CHUNK = 8 << 20
PHYS32_ENTRY = 18
GNU_BUILD_ID = 3


def release_of(image: bytes) -> str:
    """Return the release (`uname -r`) that the boot header of a bzImage names.

    Raises:
        FormatError: *image* is no bzImage.
    """
    _check_header(image)
    start = struct.unpack_from("<H", image, 0x20E)[0] + 0x200
    text = image[start : start + 256].partition(b"\0")[0]
    return text.split(b" ")[0].decode("ascii", "replace")


def unpack_kernel(image: bytes) -> bytes | None:
    """Return the ELF file inside a bzImage; None where its compression can't be undone here.

    Raises:
        FormatError: *image* is no bzImage, or its payload is broken.
    """
    _check_header(image)
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    if length < 8 or len(payload) != length:
        raise FormatError("the kernel image is cut short", hint="get the file again")
    unpacked = payload if payload.startswith(b"\x7fELF") else _decompress(payload)
    if unpacked is not None and not unpacked.startswith(b"\x7fELF"):
        raise FormatError("the kernel image's payload is not an ELF file")
    return unpacked


def has_pvh_entry(kernel: bytes) -> bool:
    """Return whether QEMU can start this ELF file directly."""
    return any(owner == b"Xen" and kind == PHYS32_ENTRY for owner, kind, _ in _notes(kernel))


def build_id_of(kernel: bytes) -> str:
    """Return the build-id of an ELF kernel in hex, empty where it has none."""
    for owner, kind, content in _notes(kernel):
        if owner == b"GNU" and kind == GNU_BUILD_ID:
            return content.hex()
    return ""


def _check_header(image: bytes) -> None:
    if len(image) < 0x260 or image[0x202:0x206] != b"HdrS" or image[0x1FE:0x200] != b"\x55\xaa":
        raise FormatError(
            "this is not a bzImage", hint="--kernel takes a version such as 6.12 or the path of a bzImage"
        )


def _decompress(payload: bytes) -> bytes | None:
    """Undo the payload's compression; its last four bytes are the size of what comes out."""
    size = struct.unpack_from("<I", payload, len(payload) - 4)[0]
    if size > MAX_KERNEL:
        raise FormatError(f"the kernel image claims to hold {size} bytes")
    body = payload[:-4]
    if body.startswith(b"\x28\xb5\x2f\xfd"):
        return _unzstd(body, size)
    if body.startswith(b"\x02\x21\x4c\x18"):
        return _unlz4(body, size)
    return _decompress_plain(payload, size)


def _decompress_plain(payload: bytes, size: int) -> bytes | None:
    import lzma
    import zlib

    try:
        if payload.startswith(b"\x1f\x8b"):
            unpacked = zlib.decompressobj(31).decompress(payload, size)
        elif payload.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
            unpacked = lzma.LZMADecompressor().decompress(payload, size)
        else:
            return None
    except (zlib.error, lzma.LZMAError) as error:
        raise FormatError(f"the kernel image's payload is broken: {error}") from error
    if len(unpacked) != size:
        raise FormatError("the kernel image's payload is broken: it ends too early")
    return unpacked


def _unzstd(body: bytes, size: int) -> bytes | None:
    """Decompress with libzstd, which apt, dpkg and QEMU themselves are linked with."""
    import ctypes

    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    library.ZSTD_findFrameCompressedSize.restype = library.ZSTD_decompress.restype = ctypes.c_size_t
    frame = library.ZSTD_findFrameCompressedSize(body, ctypes.c_size_t(len(body)))
    if frame > len(body):
        raise FormatError("the kernel image's zstd payload is broken")
    buffer = ctypes.create_string_buffer(size)
    if library.ZSTD_decompress(buffer, ctypes.c_size_t(size), body, ctypes.c_size_t(frame)) != size:
        raise FormatError("the kernel image's zstd payload is broken")
    return buffer.raw


def _unlz4(body: bytes, size: int) -> bytes | None:
    """Decompress the legacy lz4 frame: after the magic, chunks of at most 8 MiB, each after its compressed size."""
    import ctypes

    try:
        library = ctypes.CDLL("liblz4.so.1")
    except OSError:
        return None
    chunk = ctypes.create_string_buffer(LZ4_CHUNK)
    unpacked = bytearray()
    position = 4
    while position + 4 <= len(body) and len(unpacked) < size:
        length = struct.unpack_from("<I", body, position)[0]
        position += 4
        count = library.LZ4_decompress_safe(body[position : position + length], chunk, length, LZ4_CHUNK)
        if count < 0 or position + length > len(body):
            raise FormatError("the kernel image's lz4 payload is broken")
        unpacked += memoryview(chunk)[:count]
        position += length
    if len(unpacked) != size:
        raise FormatError("the kernel image's lz4 payload is broken")
    return bytes(unpacked)


def _notes(kernel: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (owner, type, content) of the notes of a 64-bit ELF file."""
    if len(kernel) < 64 or not kernel.startswith(b"\x7fELF\x02\x01"):
        return
    table = struct.unpack_from("<Q", kernel, 32)[0]
    size, count = struct.unpack_from("<HH", kernel, 54)
    for index in range(count):
        at = table + index * size
        if at + 56 > len(kernel):
            return
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", kernel, at)
        if kind == 4:
            yield from _parse_notes(kernel[offset : offset + length])


def _parse_notes(section: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    position = 0
    while position + 12 <= len(section):
        name_size, content_size, kind = struct.unpack_from("<III", section, position)
        name_at = position + 12
        content_at = name_at + (name_size + 3 & ~3)
        position = content_at + (content_size + 3 & ~3)
        yield (
            section[name_at : name_at + name_size].rstrip(b"\0"),
            kind,
            section[content_at : content_at + content_size],
        )
