from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator

import pytest

from kprobes.arch.x86_64 import assemble
from kprobes.arch.x86_64.decode import decode
from kprobes.arch.x86_64.detour import (
    EVERYTHING,
    GENERAL,
    Behind,
    Body,
    Call,
    CallPolicy,
    Flags,
    Guard,
    build,
    counter,
    full_policy,
    handler_call,
    thread_counter,
)
from kprobes.arch.x86_64.image import Image
from kprobes.arch.x86_64.patch import Patch
from kprobes.arch.x86_64.registers import ALIASES, CALLER_SAVED, PT_REGS, PT_REGS_SIZE, REGISTERS
from kprobes.arch.x86_64.sites import plan_site
from kprobes.errors import InternalError, UnsafeSiteError

from .emulator import COPY, DATA, FLAGS, ORIGINAL, PAGE, STACK, State, arbitrary, run

HANDLER = COPY + 0x8000
SLOT = DATA + 0x100
FRAME = DATA + 0x400

# xchg rsi, rdi; mov ecx, 21; rep movsq; xor eax, eax; ret: pt_regs goes to the address that is the context
COPY_FRAME = bytes.fromhex("4887f7 b915000000 f348a5 31c0 c3")
SPOIL = bytes.fromhex("48ff06 31c9 31d2 4831f6 4831ff 4531c0 4531c9 4531d2 4531db b8ffffff7f 83c001 31c0 c3")


def patch_of(code: str) -> Patch:
    raw = bytes.fromhex(code)
    plan = plan_site(Image(ORIGINAL, raw, [(ORIGINAL, ORIGINAL + len(raw))]), ORIGINAL)
    assert plan.patch is not None
    return plan.patch


def behind(body: Body) -> Behind:
    return lambda at, _ip: body(at)


def execute(patch: Patch, before: dict[int, Body], state: State, handler: bytes = SPOIL, **after: object) -> State:
    """Run the detour until it leaves, with *handler* at HANDLER."""
    made = build(patch, COPY, before, **after)  # type: ignore[arg-type]
    code = {COPY: made.code, HANDLER: handler}
    end = COPY + len(made.code)
    return run(
        code, state, start=COPY, inside=lambda ip: COPY <= ip < end or HANDLER <= ip < HANDLER + PAGE, limit=4000
    )


def word(state: State, address: int) -> int:
    return struct.unpack_from("<Q", state.data, address - DATA)[0]


NOPS = "0f1f440000 c3"


@pytest.mark.parametrize("flags", range(0, 64, 3))
def test_a_call_keeps_every_arithmetic_flag_and_register(flags: int) -> None:
    state = arbitrary(flags)
    state.flags = sum(bit for number, bit in enumerate((1, 4, 0x10, 0x40, 0x80, 0x800)) if flags >> number & 1)
    body = handler_call(Call(HANDLER, SLOT, ORIGINAL, CallPolicy()))
    after = execute(patch_of(NOPS), {ORIGINAL: body}, state)
    assert after.ip == ORIGINAL + 5
    assert after.registers == state.registers
    assert after.flags == state.flags & FLAGS
    assert word(after, SLOT) == (word(state, SLOT) + 1) % 2**64


@pytest.mark.parametrize("show", [EVERYTHING, frozenset({"flags"}), frozenset()])
def test_a_set_direction_flag_is_cleared_for_the_handler_and_comes_back(show: frozenset[str]) -> None:
    state = arbitrary(5)
    state.flags = 0x400 | 0x41
    policy = CallPolicy(show=show, clear_direction=True)
    # cld is needed: the handler moves memory upwards.
    after = execute(patch_of(NOPS), {ORIGINAL: handler_call(Call(HANDLER, FRAME, ORIGINAL, policy))}, state, COPY_FRAME)
    assert after.flags == 0x441
    assert after.registers == state.registers
    for name in show & set(GENERAL):
        assert word(after, FRAME + REGISTERS[name]) == state.registers.get(name, 0)


def test_pt_regs_is_what_the_program_had_at_the_site() -> None:
    state = arbitrary(6)
    body = handler_call(Call(HANDLER, FRAME, ORIGINAL, full_policy(skips=False)))
    after = execute(patch_of(NOPS), {ORIGINAL: body}, state, COPY_FRAME)
    seen = {name: word(after, FRAME + REGISTERS[name]) for name in PT_REGS}
    assert {name: seen[name] for name in state.registers} == state.registers
    assert (seen["ip"], seen["orig_ax"]) == (ORIGINAL, 2**64 - 1)
    assert (seen["cs"], seen["ss"]) == (0x33, 0x2B)
    assert seen["flags"] & FLAGS == state.flags & FLAGS
    assert after.registers == state.registers


def test_the_red_zone_is_left_alone() -> None:
    state = arbitrary(7)
    low = state.registers["sp"] - STACK - 128
    for body in (
        counter(SLOT, flags=Flags.KEPT),
        handler_call(Call(HANDLER, SLOT, ORIGINAL, CallPolicy())),
        handler_call(Call(HANDLER, SLOT, ORIGINAL, full_policy(skips=False))),
    ):
        after = execute(patch_of(NOPS), {ORIGINAL: body}, state)
        assert after.stack[low:] == state.stack[low:]


def test_a_handler_may_write_registers_and_flags() -> None:
    # mov qword [rdi + bx], 7; mov qword [rdi + flags], 0x41; xor eax, eax; ret
    handler = bytes.fromhex("48c747 28 07000000 48c787 90000000 41000000 31c0 c3")
    state = arbitrary(8)
    body = handler_call(Call(HANDLER, 0, ORIGINAL, full_policy(skips=False)))
    after = execute(patch_of(NOPS), {ORIGINAL: body}, state, handler)
    assert after.registers == state.registers | {"bx": 7}
    assert after.flags == 0x41


def test_an_aligned_handler_gets_an_aligned_stack() -> None:
    handler = bytes.fromhex("488926 31c0 c3")  # mov [rsi], rsp; xor eax, eax; ret
    for shift in (0, 8):
        state = arbitrary(9)
        state.registers["sp"] = state.registers["sp"] // 16 * 16 + shift
        body = handler_call(Call(HANDLER, SLOT, ORIGINAL, CallPolicy(align=True)))
        after = execute(patch_of(NOPS), {ORIGINAL: body}, state, handler)
        assert word(after, SLOT) % 16 == 8  # as behind any call
        assert after.registers == state.registers


def test_a_busy_guard_keeps_the_handler_from_running() -> None:
    busy = DATA + 0x180
    guard = Guard(
        enter=lambda at: b"\x48\x83\x3d" + struct.pack("<i", busy - at - 8) + b"\x00",  # cmp qword [busy], 0
        leave=lambda at: assemble.increment(at, busy + 8),
    )
    body = handler_call(Call(HANDLER, SLOT, ORIGINAL, CallPolicy(align=True), guard))
    for value in (0, 1):
        state = arbitrary(10)
        data = bytearray(state.data)
        data[busy - DATA : busy - DATA + 16] = struct.pack("<QQ", value, 0)
        state.data = bytes(data)
        after = execute(patch_of(NOPS), {ORIGINAL: body}, state)
        ran = 1 - value
        assert word(after, SLOT) - word(state, SLOT) == ran
        assert word(after, busy + 8) == ran
        assert after.registers == state.registers
        assert after.flags == state.flags & FLAGS


def test_a_handler_out_of_reach_is_called_through_a_register() -> None:
    body = handler_call(Call(HANDLER + 2**40, SLOT, ORIGINAL, CallPolicy()))
    text = " ".join(item.text for item in decode(body(COPY), COPY))
    assert "call rax" in text


def test_counters_count_in_memory_and_in_the_thread() -> None:
    for body, slot in (
        (counter(SLOT, flags=Flags.DEAD), SLOT),
        (counter(SLOT, flags=Flags.KEPT), SLOT),
        (counter(SLOT, flags=Flags.KEPT, dead=frozenset({"ax"})), SLOT),
        (counter(SLOT, flags=Flags.DEAD, locked=True), SLOT),
        (thread_counter(0x200, flags=Flags.KEPT), DATA + 0x200),
    ):
        state = arbitrary(11)
        after = execute(patch_of(NOPS), {ORIGINAL: body}, state)
        assert word(after, slot) == (word(state, slot) + 1) % 2**64


@pytest.mark.parametrize("zero", [0, 1])
def test_a_body_behind_a_branch_runs_on_both_its_ways(zero: int) -> None:
    state = arbitrary(12)
    state.flags = 0x40 * zero
    patch = patch_of("7420 90 90 90 90" + "90" * 40 + "c3")  # je +0x20
    after = execute(patch, {}, state, after={ORIGINAL: behind(counter(SLOT, flags=Flags.KEPT))})
    assert word(after, SLOT) == (word(state, SLOT) + 1) % 2**64
    assert after.ip == (ORIGINAL + 0x22 if zero else ORIGINAL + 5)
    assert after.flags == state.flags


@pytest.mark.parametrize("count", [1, 2])
def test_a_body_behind_a_loop_runs_on_both_its_ways(count: int) -> None:
    state = arbitrary(13)
    state.registers["cx"] = count
    patch = patch_of("e220 90 90 90 90" + "90" * 40 + "c3")
    after = execute(patch, {}, state, after={ORIGINAL: behind(counter(SLOT, flags=Flags.KEPT))})
    assert word(after, SLOT) == (word(state, SLOT) + 1) % 2**64
    assert after.ip == (ORIGINAL + 0x22 if count == 2 else ORIGINAL + 5)


def test_a_body_behind_a_plain_instruction_sees_its_result() -> None:
    state = arbitrary(14)
    patch = patch_of("48c7c007000000 c3")  # mov rax, 7
    body = handler_call(Call(HANDLER, FRAME, ORIGINAL, full_policy(skips=False)))
    after = execute(patch, {}, state, COPY_FRAME, after={ORIGINAL: behind(body)})
    assert word(after, FRAME + REGISTERS["ax"]) == 7


def test_no_body_runs_behind_a_return() -> None:
    patch = patch_of("4831c0 4831db c3")
    with pytest.raises(UnsafeSiteError, match="no handler can run after"):
        build(patch_of("c3 9090909090"), COPY, {}, {ORIGINAL: behind(counter(SLOT, flags=Flags.KEPT))})
    assert build(patch, COPY, {}).code


def test_a_thread_can_be_put_back_wherever_its_state_is_whole() -> None:
    patch = patch_of("55 4889e5 4883ec20 c9 c3")
    body = counter(SLOT, flags=Flags.KEPT)
    made = build(patch, COPY, {ORIGINAL: body, ORIGINAL + 4: body})
    size = len(body(COPY))
    assert made.resume[0] == ORIGINAL
    assert made.resume[size] == ORIGINAL
    assert made.resume[size + 1] == ORIGINAL + 1
    assert made.entries == {ORIGINAL: 0, ORIGINAL + 1: size + 1, ORIGINAL + 4: size + 4}
    back = made.code.rindex(b"\xe9")
    assert made.resume[back] == ORIGINAL + 8


def test_a_policy_that_contradicts_itself_is_a_bug() -> None:
    with pytest.raises(InternalError):
        handler_call(Call(HANDLER, 0, ORIGINAL, CallPolicy(skips=True)))


@pytest.fixture
def pages() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 0x3000, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        yield memory


# mov rax, [rdi + sp]; mov rcx, [rax]; mov [rdi + ip], rcx; add rax, 8; mov [rdi + sp], rax; mov qword [rdi + ax], 5;
# mov eax, 1; ret: the function returns 5 at once.
RETURN_5 = "488b8798000000 488b08 48898f80000000 4883c008 48898798000000 48c7475005000000 b801000000 c3"


def test_a_handler_can_return_from_the_function_on_the_real_processor(pages: mmap.mmap) -> None:
    view = ctypes.c_char.from_buffer(pages)
    base = ctypes.addressof(view)
    del view
    function = bytes.fromhex("55 4889e5 b803000000 5d c3")  # returns 3
    pages[0 : len(function)] = function
    native = ctypes.CFUNCTYPE(ctypes.c_int)(base)
    assert native() == 3
    handler = bytes.fromhex(RETURN_5)
    pages[0x2000 : 0x2000 + len(handler)] = handler
    patch = plan_site(Image(base, function, [(base, base + len(function))]), base).patch
    assert patch is not None
    made = build(patch, base + 0x1000, {base: handler_call(Call(base + 0x2000, 0, base, full_policy()))})
    pages[0x1000 : 0x1000 + len(made.code)] = made.code
    for write in patch.writes(base + 0x1000):
        pages[write.address - base : write.address - base + len(write.code)] = write.code
    assert native() == 5
    pages[0x2000:0x2003] = bytes.fromhex("31c0c3")  # this handler lets it run
    assert native() == 3


def test_the_tables_agree() -> None:
    assert set(GENERAL) | {"orig_ax", "ip", "cs", "flags", "sp", "ss"} == set(PT_REGS) == set(EVERYTHING)
    assert set(assemble.NUMBERS) == set(GENERAL) | {"sp"}
    assert set(CALLER_SAVED) < set(GENERAL)
    assert max(REGISTERS[name] for name in ALIASES.values()) < PT_REGS_SIZE
