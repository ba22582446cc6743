from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.arch.x86_64.decode import Flow, boundaries, branch_targets, decode, exits, is_boundary, skip_endbr

BASE = 0x1000


@pytest.mark.parametrize(
    ("raw", "flow", "target", "operand"),
    [
        ("90", Flow.NEXT, None, None),
        ("7405", Flow.BRANCH, 0x1007, None),
        ("0f8400010000", Flow.BRANCH, 0x1106, None),
        ("e2fe", Flow.LOOP, 0x1000, None),
        ("e3fe", Flow.LOOP, 0x1000, None),
        ("eb10", Flow.JUMP, 0x1012, None),
        ("ffe0", Flow.JUMP_INDIRECT, None, None),
        ("ff2510000000", Flow.JUMP_INDIRECT, None, 0x1016),
        ("e810000000", Flow.CALL, 0x1015, None),
        ("ff1510000000", Flow.CALL_INDIRECT, None, 0x1016),
        ("c3", Flow.RETURN, None, None),
        ("0f05", Flow.NEXT, None, None),
        ("cd80", Flow.NEXT, None, None),
        ("c7f810000000", Flow.TRANSACTION, 0x1016, None),
        ("0f0b", Flow.STOP, None, None),
        ("488b0510000000", Flow.NEXT, None, 0x1017),
        ("678b0510000000", Flow.NEXT, None, 0x1017),
        ("62f1fe486f0510000000", Flow.NEXT, None, 0x101A),
    ],
)
def test_an_instruction_says_where_it_leads(raw: str, flow: str, target: int | None, operand: int | None) -> None:
    (item,) = decode(bytes.fromhex(raw), BASE)
    assert (item.flow, item.target, item.data) == (flow, target, operand)
    assert (item.address, item.end) == (BASE, BASE + len(raw) // 2)


def test_the_text_is_intel_assembly() -> None:
    (item,) = decode(bytes.fromhex("4889e5"), BASE)
    assert item.text == "mov rbp,rsp"


@given(st.binary(max_size=60))
@settings(max_examples=80)
def test_any_bytes_decode_to_records_that_cover_them(raw: bytes) -> None:
    items = decode(raw, BASE)
    assert b"".join(item.code for item in items) == raw
    place = BASE
    for item in items:
        assert item.address == place
        place = item.end


@given(st.binary(min_size=1, max_size=60), st.integers(1, 12))
@settings(max_examples=40)
def test_decoding_a_part_gives_the_first_records(raw: bytes, cover: int) -> None:
    part = decode(raw, BASE, cover=cover)
    assert part == decode(raw, BASE)[: len(part)]
    assert sum(len(item.code) for item in part) >= min(cover, len(raw))
    assert sum(len(item.code) for item in part[:-1]) < cover


def test_boundaries_are_where_a_sweep_from_the_start_finds_them() -> None:
    code = bytes.fromhex("55 4889e5 4883ec20 c9 c3")
    assert boundaries(code, BASE) == [BASE, BASE + 1, BASE + 4, BASE + 8, BASE + 9]
    found = [address for address in range(BASE - 2, BASE + 12) if is_boundary(code, BASE, address)]
    assert found == boundaries(code, BASE)


def test_branch_targets_are_those_of_every_direct_branch() -> None:
    code = bytes.fromhex("7402 eb00 e810000000 e2f5 ffe0 c7f800000000")
    assert branch_targets(code, BASE) == {BASE + 4, BASE + 0x19, BASE, BASE + 0x13}


def test_an_entry_lies_behind_its_endbr64() -> None:
    assert skip_endbr(bytes.fromhex("f30f1efa55"), BASE) == BASE + 4
    assert skip_endbr(b"\x55", BASE) == BASE


def test_exits_are_returns_and_jumps_that_leave() -> None:
    code = bytes.fromhex("7406 7520 c3 ffe0 90 e900010000 eb00")
    items = decode(code, BASE)
    left = [item.address - BASE for item in exits(items, BASE, BASE + len(code))]
    assert left == [2, 4, 5, 8, 13]
