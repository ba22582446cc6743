from __future__ import annotations

import pytest

from kprobes.arch.x86_64.image import Image
from kprobes.arch.x86_64.liveness import NOTHING, dead_at, may_set_direction

BASE = 0x40_0000


def dead(code: str, offset: int = 0, **options: int) -> tuple[frozenset[str], bool]:
    raw = bytes.fromhex(code)
    found = dead_at(Image(BASE, raw, [(BASE, BASE + len(raw))]), BASE + offset, **options)  # type: ignore[arg-type]
    return found.registers, found.flags


FILL = "0f1f440000 "  # so that what follows isn't the function's entry


@pytest.mark.parametrize(
    ("code", "register", "expected"),
    [
        ("b801000000 c3", "ax", True),  # mov eax, 1: all 64 bits are overwritten
        ("b001 c3", "ax", False),  # mov al, 1 keeps the rest
        ("66b80100 c3", "ax", False),  # mov ax, 1 too
        ("48ffc0 c3", "ax", False),  # inc rax reads it
        ("31c0 c3", "ax", True),  # xor eax, eax reads nothing
        ("480f44c8 c3", "cx", False),  # cmove rcx, rax may leave it
        ("4889c1 c3", "cx", True),  # mov rcx, rax
        ("e800000000 31c9 c3", "cx", False),  # a call of a function that may want it, or keep it (-fipa-ra)
        ("c3", "r11", False),  # a return: the caller may know that this function keeps r11
        ("7402 31c9 31c9 c3", "cx", True),  # overwritten on both ways
        ("7402 31c9 c3", "cx", False),  # on one way only
        ("0f05 31c9 c3", "cx", True),  # a system call overwrites rcx
        ("0f05 31ff c3", "di", False),  # and reads rdi
        ("f3a4 c3", "cx", False),  # rep movsb reads rcx
        ("8b0c24 c3", "sp", False),  # the stack pointer is never dead
        ("ffe0", "dx", False),  # who knows where it goes
    ],
)
def test_a_register_is_dead_if_it_is_overwritten_before_it_is_read(code: str, register: str, expected: bool) -> None:
    assert (register in dead(FILL + code, 5)[0]) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("4839c8 7402 90 90 c3", True),  # cmp overwrites all
        ("7402 4839c8 c3", False),  # je reads
        ("c3", True),  # nobody carries flags over a return
        ("e800000000 c3", True),  # nor over a call
        ("48ffc0 7202 9090 c3", False),  # inc keeps the carry, which jc reads
        ("48ffc0 4839c8 c3", True),
        ("48d3e0 7402 9090 c3", False),  # shl by cl keeps the flags if cl is 0
        ("48c1e003 7402 9090 c3", True),  # shl by 3 writes them all, or leaves them undefined
        ("f3a6 7402 9090 c3", False),  # repe cmpsb of length 0 compares nothing
        ("9c 58 c3", False),  # pushf
        ("ebfe", True),  # nobody ever reads
        ("0f05 7402 9090 c3", False),  # a system call keeps them
    ],
)
def test_flags_are_dead_if_all_are_overwritten_before_one_is_read(code: str, expected: bool) -> None:
    assert dead(FILL + code, 5)[1] is expected
    assert dead(FILL + code, 5, flags_only=True)[1] is expected


def test_at_an_entry_the_flags_are_dead_unless_the_function_reads_them() -> None:
    assert dead("ffe0")[1] is True
    assert dead(FILL + "ffe0", 5)[1] is False
    assert dead("7402 9090 c3")[1] is False


def test_a_walk_that_takes_too_long_proves_nothing() -> None:
    code = FILL + "90" * 30 + "31c0 c3"
    assert "ax" in dead(code, 5)[0]
    assert "ax" not in dead(code, 5, budget=20)[0]


def test_outside_of_every_function_nothing_is_dead() -> None:
    assert dead_at(Image(BASE, b"\x31\xc0\xc3", []), BASE) == NOTHING


@pytest.mark.parametrize(("code", "expected"), [("31c0 c3", False), ("fd f3a4 fc c3", True), ("9d c3", True)])
def test_only_std_and_popf_may_set_the_direction_flag(code: str, expected: bool) -> None:
    raw = bytes.fromhex(code)
    function = Image(BASE, raw, [(BASE, BASE + len(raw))]).function(BASE)
    assert function is not None
    assert may_set_direction(function) is expected
