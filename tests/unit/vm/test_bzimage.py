"""Kernel images: what is inside, and what is wrong with them."""

import lzma
import struct
import zlib

import pytest

from kprobes.engines.vm.bzimage import build_id_of, has_pvh_entry, release_of, unpack_kernel
from kprobes.errors import FormatError

BUILD_ID = bytes(range(20))


def note(owner, kind, content):
    owner += b"\0"
    return struct.pack("<III", len(owner), len(content), kind) + owner.ljust(-(-len(owner) // 4) * 4, b"\0") + content


def elf(notes):
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    return header + segment + notes


KERNEL = elf(note(b"Xen", 18, bytes(4)) + note(b"GNU", 3, BUILD_ID))


def bzimage(payload, release=b"6.12.107+deb13-cloud-amd64 (debian) #1"):
    image = bytearray(2 * 512)
    image[0x1F1] = 1
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x300 - 0x200)
    image[0x300 : 0x300 + len(release) + 1] = release + b"\0"
    struct.pack_into("<II", image, 0x248, 64, len(payload))
    return bytes(image) + bytes(64) + payload


def sized(packed):
    return packed + struct.pack("<I", len(KERNEL))


def gzipped():
    packer = zlib.compressobj(wbits=31)
    return packer.compress(KERNEL) + packer.flush()


def lz4_legacy():
    literal = len(KERNEL) - 15
    lengths = b"\xf0" + b"\xff" * (literal // 255) + bytes([literal % 255])
    block = lengths + KERNEL
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


def zstd_raw():
    block = struct.pack("<I", len(KERNEL) << 3 | 1)[:3] + KERNEL
    return b"\x28\xb5\x2f\xfd" + bytes([0x60]) + struct.pack("<H", len(KERNEL) - 256) + block


@pytest.mark.parametrize(
    "payload",
    [gzipped(), sized(lzma.compress(KERNEL)), sized(lz4_legacy())],
    ids=["gzip", "xz", "lz4"],
)
def test_the_kernel_comes_out(payload):
    assert unpack_kernel(bzimage(payload)) == KERNEL


def test_a_kernel_that_is_not_compressed_is_taken_as_it_is():
    assert unpack_kernel(bzimage(KERNEL)) == KERNEL


def test_an_unknown_compression_is_left_to_the_kernel_itself():
    assert unpack_kernel(bzimage(sized(b"\x89LZO" + bytes(50)))) is None


def test_the_release_is_the_first_word_of_the_version():
    assert release_of(bzimage(gzipped())) == "6.12.107+deb13-cloud-amd64"


def test_build_id_and_pvh_entry_are_read_from_the_notes():
    assert build_id_of(KERNEL) == BUILD_ID.hex()
    assert has_pvh_entry(KERNEL)
    assert not has_pvh_entry(elf(note(b"GNU", 3, BUILD_ID)))


@pytest.mark.parametrize("data", [b"", b"MZ" * 400, b"\x7fELF" + bytes(1000)])
def test_what_is_no_bzimage_is_refused(data):
    with pytest.raises(FormatError, match="not a bzImage"):
        release_of(data)


def test_a_cut_image_is_refused():
    with pytest.raises(FormatError, match="cut short"):
        unpack_kernel(bzimage(gzipped())[:-10])


@pytest.mark.parametrize("payload", [sized(lzma.compress(KERNEL)[:-80]), sized(lz4_legacy()[:-8]), gzipped()[:30]])
def test_a_broken_payload_is_refused(payload):
    with pytest.raises(FormatError):
        unpack_kernel(bzimage(payload))


def test_a_payload_that_claims_too_much_is_refused():
    with pytest.raises(FormatError, match="claims"):
        unpack_kernel(bzimage(lz4_legacy() + b"\xff\xff\xff\xff"))


def test_notes_that_lie_about_their_sizes_end_the_search():
    assert build_id_of(elf(struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 3))) == ""
