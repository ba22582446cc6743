"""The registry and the journal, also as a hostile target would leave them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.process.layout import JOURNAL_ENTRY, REGISTRY_SIZE
from kprobes.engines.process.registry import (
    LONGEST_PATCH,
    MAX_AREAS,
    MAX_ENTRIES,
    Identity,
    Patch,
    Registry,
    format_journal,
    format_registry,
    parse_journal,
    parse_registry,
)
from kprobes.errors import FormatError

REGISTRY = Registry(Identity(1, 2), Identity(3, 4), ((0x1000, 0x2000), (0x7000_0000_0000, 0x1000)), 4096, 17)
PATCHES = [Patch(0x401000, b"\x55\x48\x89\xe5\x90", b"\xe9abcd", 0x401000), Patch(0x402000, b"\xc3", b"\xcc", 0x402010)]


def page(registry: Registry) -> bytes:
    return format_registry(registry).ljust(REGISTRY_SIZE, b"\0")


def test_registry_and_journal_come_back_as_written() -> None:
    assert parse_registry(page(REGISTRY)) == REGISTRY
    journal = format_journal(PATCHES)
    assert len(journal) == 2 * JOURNAL_ENTRY
    assert parse_journal(journal) == (PATCHES, [])
    counted = [Patch.counter(0x404010, 0x401000), *PATCHES]
    assert parse_journal(format_journal(counted)) == ([*PATCHES, counted[0]], [])
    areas = [(0x1000, 0x3000), (0x7000_0000_0000, 0x1000)]
    assert parse_journal(format_journal(PATCHES, areas)) == (PATCHES, areas)


def test_a_registry_leaves_the_claim_counter_alone() -> None:
    from kprobes.engines.process.layout import CLAIM_COUNTER

    full = Registry(Identity(1, 2), Identity(3, 4), ((0x1000, 0x1000),) * MAX_AREAS, 4096, MAX_ENTRIES)
    assert len(format_registry(full)) <= CLAIM_COUNTER


@pytest.mark.parametrize("place", [0, 8, 12])
def test_a_scribbled_head_is_no_registry(place: int) -> None:
    scribbled = bytearray(page(REGISTRY))
    scribbled[place : place + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(FormatError):
        parse_registry(bytes(scribbled))


@given(st.binary(max_size=300))
def test_any_page_is_a_bounded_registry_or_an_error(content: bytes) -> None:
    with contextlib.suppress(FormatError):
        registry = parse_registry((format_registry(REGISTRY)[:12] + content).ljust(REGISTRY_SIZE, b"\xff"))
        assert len(registry.areas) <= MAX_AREAS
        assert registry.entries <= MAX_ENTRIES


@given(st.binary(max_size=10 * JOURNAL_ENTRY))
def test_any_journal_gives_bounded_patches(content: bytes) -> None:
    patches, areas = parse_journal(content)
    assert all(start % 4096 == 0 and size % 4096 == 0 and size > 0 for start, size in areas)
    for patch in patches:
        assert 0 < len(patch.original) == len(patch.written) <= LONGEST_PATCH
        assert 0 < patch.address < 1 << 47
