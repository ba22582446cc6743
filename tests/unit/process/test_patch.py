"""Who has to be moved when a patch is written, and when it is taken away."""

from __future__ import annotations

import pytest

from kprobes.engines.process.patch import Place, Resume, ways_back, ways_out, write_patches
from kprobes.engines.process.ptrace import Registers
from kprobes.engines.process.registry import Patch
from kprobes.errors import TargetError, UnsafeSiteError

PATCH = Patch(0x1000, b"\x55\x48\x89\xe5\x90", b"\xe9\1\2\3\4", 0x1000)
HOP = Patch(0x2005, b"\x90\x90\x90\x90\x90", b"\xe9\5\6\7\x08", 0x3000)
MOVES = {0x1000: 0x9000, 0x1001: 0x9001, 0x1004: 0x9004, 0x2005: 0x9100}


class Threads:
    """Threads 1 and 2 are stopped."""

    def __init__(self) -> None:
        self.registers = {1: Registers(), 2: Registers()}


class Memory:
    """One page of bytes at 0x1000."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.writes = 0

    def read_some(self, address: int, size: int) -> bytes:
        return bytes(self.content[address - 0x1000 : address - 0x1000 + size])

    def write(self, address: int, content: bytes) -> None:
        self.writes += 1
        self.content[address - 0x1000 : address - 0x1000 + len(content)] = content


def out(*places: Place) -> dict[Place, Resume]:
    return ways_out(Threads(), places, [PATCH, HOP], MOVES)  # type: ignore[arg-type]


def test_thread_at_the_first_byte_runs_the_jump_and_stays() -> None:
    assert out(Place(1, 0x1000)) == {}


def test_thread_behind_the_first_instruction_goes_to_its_copy() -> None:
    place = Place(1, 0x1001)
    assert out(place) == {place: Resume(0x9001)}


def test_thread_where_the_second_hop_will_stand_goes_to_its_copy() -> None:
    place = Place(2, 0x2005)
    assert out(place) == {place: Resume(0x9100)}


def test_restarting_system_call_counts_as_standing_on_its_instruction() -> None:
    inside, behind, before = (
        Place(1, 0x1003, restarts=True),
        Place(1, 0x1006, restarts=True),
        Place(1, 0x1002, restarts=True),
    )
    assert out(inside) == {inside: Resume(0x9001)}
    assert out(behind) == {behind: Resume(0x9004)}
    assert out(before) == {}


def test_place_between_instructions_or_a_sleeper_inside_refuses() -> None:
    with pytest.raises(UnsafeSiteError, match="a thread stands inside"):
        out(Place(1, 0x1002))
    with pytest.raises(UnsafeSiteError):
        out(Place(77, 0x1001))


def test_signal_frame_is_moved_without_its_thread() -> None:
    place = Place(0, 0x1004, stored_at=0x7000)
    assert out(place) == {place: Resume(0x9004)}


def test_on_the_way_back_hops_and_copies_lead_to_the_program() -> None:
    hop, copy, call = Place(1, 0x2005), Place(2, 0x9001), Place(1, 0x9200)
    resume = {0x9001: Resume(0x1001), 0x9200: Resume(0x4000, 8)}
    sends = ways_back(Threads(), [hop, copy, call], [PATCH, HOP], resume)  # type: ignore[arg-type]
    assert sends == {hop: Resume(0x3000), copy: Resume(0x1001), call: Resume(0x4000, 8)}
    assert ways_back(Threads(), [Place(77, 0x2005)], [HOP], {}) is None  # type: ignore[arg-type]


def test_code_that_has_changed_is_not_written() -> None:
    memory = Memory(b"\x55\x48\x89\xe5\xcc" + b"\0" * 11)
    with pytest.raises(TargetError, match="not what it was"):
        write_patches(memory, [PATCH])  # type: ignore[arg-type]
    assert memory.writes == 0


def test_undo_leaves_alone_what_somebody_else_has_changed() -> None:
    memory = Memory(PATCH.written + b"\0" * 11)
    other = Patch(0x1008, b"\x90", b"\xcc", 0x1008)
    assert write_patches(memory, [PATCH, other], undo=True) == [other]  # type: ignore[arg-type]
    assert memory.read_some(0x1000, 5) == PATCH.original
    assert memory.content[8] == 0


def test_patches_of_a_page_are_written_at_once() -> None:
    memory = Memory(PATCH.original + b"\0\0\0\x90" + b"\0" * 7)
    other = Patch(0x1008, b"\x90", b"\xcc", 0x1008)
    assert write_patches(memory, [other, PATCH]) == []  # type: ignore[arg-type]
    assert memory.writes == 1
    assert memory.read_some(0x1000, 9) == PATCH.written + b"\0\0\0\xcc"


def test_counters_go_up_and_down_by_what_they_hold_and_nothing_beside_them_is_written() -> None:
    memory = Memory(bytes(16))
    counters = [Patch.counter(0x1002, 0x5000), Patch.counter(0x1008, 0x5000), Patch.counter(0x1002, 0x6000)]
    assert write_patches(memory, counters, check_only=True) == []  # type: ignore[arg-type]
    assert write_patches(memory, counters) == []  # type: ignore[arg-type]
    assert memory.writes == 2
    assert memory.content == b"\0\0\2\0\0\0\0\0\1\0\0\0\0\0\0\0"
    memory.content[2:4] = b"\0\1"  # somebody else has counted up to 256
    assert write_patches(memory, counters[:2], undo=True) == []  # type: ignore[arg-type]
    assert memory.content[2:4] + memory.content[8:10] == b"\xff\0\0\0"


def test_a_counter_never_goes_around_its_end() -> None:
    memory = Memory(b"\xff\xff" + bytes(14))
    with pytest.raises(TargetError):
        write_patches(memory, [Patch.counter(0x1000, 0x5000)])  # type: ignore[arg-type]
    low = Patch.counter(0x1002, 0x5000)
    assert write_patches(memory, [low], undo=True) == [low]  # type: ignore[arg-type]
    with pytest.raises(TargetError):
        write_patches(memory, [Patch.counter(0x100F, 0x5000)])  # type: ignore[arg-type] - its memory ends there
    assert memory.content == b"\xff\xff" + bytes(14)


def test_no_thread_stands_on_a_counter() -> None:
    counter = Patch.counter(0x404010, 0x401000)
    assert ways_back(Threads(), [Place(1, 0x404010)], [counter], {}) == {}  # type: ignore[arg-type]
