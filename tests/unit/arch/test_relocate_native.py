"""Forms that the emulator doesn't know (VEX, EVEX, transactions), run by this very CPU: in place, and moved."""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kprobes.arch.x86_64.decode import decode
from kprobes.arch.x86_64.relocate import relocate

# Vectors come in and go out through the buffer in rdi, 64 bytes each.
LOAD = {"avx2": ["c5fe6f07", "c5fe6f4f40"], "avx512f": ["62f1fe486f07", "62f1fe486f4f01"]}
STORE = {
    "avx2": ["c5fe7f8780000000", "c5fe7f8fc0000000"],
    "avx512f": ["62f1fe487f4702", "62f1fe487f4f03"],
}
RETURN = "48898700010000c5f877c3"  # mov [rdi+0x100], rax; vzeroupper; ret
BUFFER = 0x108
DATA_OFFSET = 0x800

FORMS = {
    "vmovdqu ymm0, [rip]": ("avx2", "c5fe6f05", ""),
    "vmovdqu [rip], ymm1": ("avx2", "c5fe7f0d", ""),
    "vpaddd ymm1, ymm0, [rip]": ("avx2", "c5fdfe0d", ""),
    "vpshufb ymm0, ymm1, [rip]": ("avx2", "c4e2750005", ""),
    "vpermq ymm0, [rip], 0x1b": ("avx2", "c4e3fd0005", "1b"),
    "vfmadd231pd ymm0, ymm1, [rip]": ("avx2", "c4e2f5b805", ""),
    "vbroadcastss ymm1, [rip]": ("avx2", "c4e27d180d", ""),
    "rorx rax, [rip], 7": ("avx2", "c4e3fbf005", "07"),
    "vmovdqu64 zmm0, [rip]": ("avx512f", "62f1fe486f05", ""),
    "vmovdqu64 [rip], zmm1": ("avx512f", "62f1fe487f0d", ""),
    "vpaddq zmm1, zmm0, [rip]": ("avx512f", "62f1fd48d40d", ""),
    "vpaddq zmm0, zmm1, [rip]{1to8}": ("avx512f", "62f1f558d405", ""),
    "vpternlogd zmm0, zmm1, [rip], 0x96": ("avx512f", "62f375482505", "96"),
    "vmovdqu64 ymm0, [rip] (EVEX.256)": ("avx512vl", "62f1fe286f05", ""),
}


@pytest.fixture(scope="module")
def pages() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 0x2000, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        yield memory


def cpu_has(feature: str) -> bool:
    return feature in Path("/proc/cpuinfo").read_text().split()


def call(pages: mmap.mmap, code: bytes, at: int, seed: int) -> tuple[bytes, bytes]:
    """Write *code* at offset *at*, call it with a buffer, and return the buffer and the data that it leaves."""
    noise = random.Random(seed)
    pages[DATA_OFFSET : DATA_OFFSET + 64] = noise.randbytes(64)
    pages[at : at + len(code)] = code
    buffer = ctypes.create_string_buffer(noise.randbytes(BUFFER), BUFFER)
    view = ctypes.c_char.from_buffer(pages)
    address = ctypes.addressof(view)
    del view
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address + at)(ctypes.addressof(buffer))
    return buffer.raw, pages[DATA_OFFSET : DATA_OFFSET + 64]


def base_of(pages: mmap.mmap) -> int:
    view = ctypes.c_char.from_buffer(pages)
    return ctypes.addressof(view)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_vector_function_does_the_same_when_moved(name: str, pages: mmap.mmap) -> None:
    feature, head, tail = FORMS[name]
    if not cpu_has(feature):
        pytest.skip(f"this CPU has no {feature}")
    width = "avx512f" if feature != "avx2" else "avx2"
    prologue = b"".join(bytes.fromhex(one) for one in LOAD[width]) + b"\x31\xc0"
    opcode, rest = bytes.fromhex(head), bytes.fromhex(tail)
    displacement = struct.pack("<i", DATA_OFFSET - (len(prologue) + len(opcode) + 4 + len(rest)))
    epilogue = b"".join(bytes.fromhex(one) for one in [*STORE[width], RETURN])
    code = prologue + opcode + displacement + rest + epilogue
    base = base_of(pages)
    moved = relocate(decode(code, base), base + 0x1000).code
    for seed in range(3):
        first = call(pages, code, 0, seed)
        pages[0 : len(code)] = b"\xcc" * len(code)
        assert call(pages, moved, 0x1000, seed) == first


def test_an_aborted_transaction_goes_on_at_its_original_handler(pages: mmap.mmap) -> None:
    if not cpu_has("rtm"):
        pytest.skip("this CPU has no rtm")
    # mov eax, 1; xbegin 0x40; xabort 1; ret. At 0x40 stands the handler: mov eax, 3; mov [rdi + 0x100], rax; ret
    handler = bytes.fromhex("b803000000") + bytes.fromhex(RETURN)
    body = bytes.fromhex("b801000000c7f8") + struct.pack("<i", 0x40 - 11) + bytes.fromhex("c6f801") + b"\xc3"
    base = base_of(pages)
    pages[0x40 : 0x40 + len(handler)] = handler
    moved = relocate(decode(body, base), base + 0x1000).code
    pages[0:0x10] = b"\xcc" * 0x10
    buffer, _ = call(pages, moved, 0x1000, 0)
    assert struct.unpack_from("<Q", buffer, 0x100) == (3,)
