"""The loader's rendezvous is found by what the program says, and believed only where it can be one."""

from __future__ import annotations

import ctypes
import os
import struct

import pytest

from kprobes.engines.process.loader import INT3, find_rendezvous
from kprobes.engines.process.memory import ProcessMemory
from kprobes.engines.process.procfs import Mapping, read_auxiliary, read_maps

CODE, FILE = 0x10000, Mapping(0x10000, 0x11000, "r-xp", 0, "fe:00", 7, "/ld.so")
HEADERS, DYNAMIC, DEBUG, SHIFT = 0x400040, 0x402000, 0x403000, 0x400000
EMPTY = [b"\xc3", b"\xf3\xc3", b"\xf3\x0f\x1e\xfa\xc3", b"\xf3\x0f\x1e\xfa\x55\x48\x89\xe5\x5d\xc3"]


class Memory:
    """Memory that holds *contents* by address, and nothing else."""

    def __init__(self, contents: dict[int, bytes]) -> None:
        self.contents = contents

    def read_some(self, address: int, size: int) -> bytes:
        return self.contents.get(address, b"")[:size]


def program(*, code: bytes = b"\xc3", place: int = CODE, version: int = 1, size: int = 48, headers: int = 2) -> Memory:
    return Memory({
        HEADERS: struct.pack("<IIQQQQQQ", 6, 4, 0x40, HEADERS - SHIFT, 0, 112, 112, 8)
        + struct.pack("<IIQQQQQQ", 2, 6, 0, DYNAMIC - SHIFT, 0, size, size, 8) * (headers - 1),
        DYNAMIC: struct.pack("<QQQQQQ", 5, 1, 21, DEBUG, 0, 0),
        DEBUG: struct.pack("<i4xQQQ", version, 0x5000, place, 0),
        CODE: code.ljust(64, b"\x90"),
    })  # fmt: skip


def auxiliary(at: int = HEADERS, size: int = 56, count: int = 2) -> bytes:
    return struct.pack("<QQQQQQQQ", 3, at, 4, size, 5, count, 0, 0)


def found(memory: Memory, vector: bytes = b"") -> object:
    return find_rendezvous(memory, vector or auxiliary(), [FILE])  # type: ignore[arg-type]


@pytest.mark.parametrize("code", EMPTY)
def test_an_empty_function_is_one(code: bytes) -> None:
    patch = found(program(code=code))
    assert (patch.address, patch.original, patch.written) == (CODE, code[:1], INT3)


@pytest.mark.parametrize("code", [b"", b"\x90\xc3", b"\xcc", b"\x55\xc3", b"\xc2\x08\x00", b"\xe9\x00\x00\x00\x00"])
def test_a_function_that_does_something_is_none(code: bytes) -> None:
    assert found(program(code=code)) is None


@pytest.mark.parametrize(
    "broken",
    [{"place": CODE + 0x2000}, {"place": 0}, {"place": (1 << 64) - 1}, {"version": 0}, {"size": 16}, {"headers": 1}],
)
def test_what_leads_nowhere_is_none(broken: dict[str, int]) -> None:
    assert found(program(**broken)) is None


@pytest.mark.parametrize(
    "vector", [b"x", auxiliary(at=0), auxiliary(size=32), auxiliary(count=0), auxiliary(count=1 << 40)]
)
def test_a_strange_auxiliary_vector_leads_nowhere(vector: bytes) -> None:
    assert found(program(), vector) is None


def test_it_is_the_function_that_this_machines_loader_calls() -> None:
    own = os.getpid()
    with ProcessMemory(own) as memory:
        patch = find_rendezvous(memory, read_auxiliary(own), read_maps(own))
    named = ctypes.cast(ctypes.CDLL(None)._dl_debug_state, ctypes.c_void_p) if has_name() else None
    assert patch is not None
    assert named is None or patch.address == named.value


def has_name() -> bool:
    return hasattr(ctypes.CDLL(None), "_dl_debug_state")
