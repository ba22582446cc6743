from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.arch.x86_64.decode import decode
from kprobes.arch.x86_64.relocate import relocate
from kprobes.errors import UnsafeSiteError

from .emulator import COPY, DATA, ORIGINAL, STACK, STACK_SIZE, State, arbitrary, run

FAR = ORIGINAL + 0x8_0000


def rel32(at: int, target: int) -> bytes:
    return struct.pack("<i", target - at)


def rip(head: str, tail: str = "") -> bytes:
    """An instruction at ORIGINAL with a RIP-relative operand in the data page."""
    opcode, rest = bytes.fromhex(head), bytes.fromhex(tail)
    end = ORIGINAL + len(opcode) + 4 + len(rest)
    return opcode + rel32(end, DATA + 0x40) + rest


def to(head: str, target: int = FAR) -> bytes:
    opcode = bytes.fromhex(head)
    return opcode + rel32(ORIGINAL + len(opcode) + 4, target)


READS_ITS_ADDRESS = {
    "mov r8, [rip]": rip("8a05"),
    "mov [rip], r8": rip("881d"),
    "mov r16, [rip]": rip("668b0d"),
    "mov r32, [rip]": rip("8b15"),
    "mov r64, [rip]": rip("488b35"),
    "mov r15, [rip]": rip("4c8b3d"),
    "mov [rip], imm8": rip("c605", "7f"),
    "mov [rip], imm16": rip("66c705", "3412"),
    "mov [rip], imm32": rip("c705", "78563412"),
    "mov qword [rip], imm32": rip("48c705", "785634f2"),
    "cmp byte [rip], imm8": rip("803d", "10"),
    "cmp dword [rip], imm8": rip("833d", "10"),
    "cmp dword [rip], imm32": rip("813d", "10000080"),
    "add [rip], r64": rip("480105"),
    "lock xadd [rip], r64": rip("f0480fc10d"),
    "lock cmpxchg [rip], r64": rip("f0480fb10d"),
    "xchg [rip], r32": rip("8705"),
    "lea r64, [rip]": rip("488d1d"),
    "lea r32, [rip]": rip("8d1d"),
    "lea r16, [rip]": rip("668d1d"),
    "test [rip], r8": rip("8405"),
    "test dword [rip], imm32": rip("f705", "78563412"),
    "shl dword [rip], imm8": rip("c125", "03"),
    "bt qword [rip], imm8": rip("480fba25", "11"),
    "bts qword [rip], imm8": rip("480fba2d", "11"),
    "movzx r32, word [rip]": rip("0fb705"),
    "movsx r64, byte [rip]": rip("480fbe05"),
    "movsxd r64, [rip]": rip("486305"),
    "cmovl r64, [rip]": rip("480f4c05"),
    "setc [rip]": rip("0f9205"),
    "imul r64, [rip], imm32": rip("486905", "10320000"),
    "imul r64, [rip], imm8": rip("486b05", "f7"),
    "mul qword [rip]": rip("48f725"),
    "push [rip]": rip("ff35"),
    "pop [rip]": rip("8f05"),
    "inc byte [rip]": rip("fe05"),
    "neg qword [rip]": rip("48f71d"),
    "movd xmm, [rip]": rip("660f6e05"),
    "movaps xmm, [rip]": rip("0f2805"),
    "movdqu [rip], xmm": rip("f30f7f0d"),
    "addsd xmm, [rip]": rip("f20f5805"),
    "pshufd xmm, [rip], imm8": rip("660f7005", "1b"),
    "pshufb xmm, [rip]": rip("660f380005"),
    "pcmpistri [rip], imm8": rip("660f3a6305", "0c"),
    "crc32 r32, byte [rip]": rip("f20f38f005"),
    "movbe r32, [rip]": rip("0f38f005"),
    "popcnt r64, [rip]": rip("f3480fb805"),
    "fld qword [rip]; fstp": rip("dd05"),
    "andn r64, r64, [rip] (VEX3)": rip("c4e2f8f205"),
    "rorx r64, [rip], imm8 (VEX3)": rip("c4e3fbf005", "07"),
    "fs: prefix ignored on lea": rip("3e488d05"),
    "je rel8": bytes.fromhex("7440"),
    "jno rel8 back": bytes.fromhex("7180"),
    "jmp rel8": bytes.fromhex("eb70"),
    "jmp rel8 back": bytes.fromhex("ebf0"),
    "jmp rel32": to("e9"),
    "bnd jmp rel32": to("f2e9"),
    "call rel32": to("e8"),
    "addr32 call rel32": to("67e8"),
    "data16 data16 rex.W call": to("666648e8"),
    "call next": to("e8", ORIGINAL + 5),
    "loop rel8": bytes.fromhex("e220"),
    "loope rel8": bytes.fromhex("e120"),
    "loopne rel8 back": bytes.fromhex("e0a0"),
    "addr32 loop rel8": bytes.fromhex("67e220"),
    "jrcxz rel8": bytes.fromhex("e310"),
    "jecxz rel8": bytes.fromhex("67e310"),
    "call [rip]": rip("ff15"),
    "jmp [rip]": rip("ff25"),
    "notrack jmp [rip]": rip("3eff25"),
    "call rax": bytes.fromhex("ffd0"),
    "call r11": bytes.fromhex("41ffd3"),
    "call [rsp]": bytes.fromhex("ff1424"),
    "call [rsp+8]": bytes.fromhex("ff542408"),
    "call [rsp-0x10]": bytes.fromhex("ff5424f0"),
    "call [rsp+0x7c]": bytes.fromhex("ff54247c"),
    "call [rsp+0x100]": bytes.fromhex("ff942400010000"),
    "call fs:[0x28]": bytes.fromhex("64ff142528000000"),
    "jmp rax": bytes.fromhex("ffe0"),
    "jmp [rsp+8]": bytes.fromhex("ff642408"),
    "ret": bytes.fromhex("c3"),
    "rep ret": bytes.fromhex("f3c3"),
    "ret imm16": bytes.fromhex("c21000"),
    "pushfq": bytes.fromhex("9c"),
    "popfq": bytes.fromhex("9d"),
    "push rsp": bytes.fromhex("54"),
    "leave": bytes.fromhex("c9"),
    "enter": bytes.fromhex("c8200000"),
    "rep movsb": bytes.fromhex("f3a4"),
} | {f"j{code:x} rel32": to(f"0f8{code:x}") for code in range(16)}


def both(raw: bytes, state: State, to_address: int = COPY) -> tuple[State, State]:
    """Run *raw* in its place and moved, each until it leaves; falling out of the copy counts as falling through."""
    moved = relocate(decode(raw, ORIGINAL), to_address)
    first = run({ORIGINAL: raw}, state, start=ORIGINAL, inside=lambda ip: ip == ORIGINAL)
    end = to_address + len(moved.code)
    second = run({to_address: moved.code}, state, start=to_address, inside=lambda ip: to_address <= ip < end)
    if second.ip == end:
        second.ip = ORIGINAL + len(raw)
    return first, second


def same(first: State, second: State) -> None:
    """Compare field by field, so that a failure shows the one register and not two pages of memory."""
    assert first.ip == second.ip
    assert first.registers == second.registers
    assert first.flags == second.flags
    assert first.vectors == second.vectors
    assert first.data == second.data
    assert first.stack == second.stack


@pytest.mark.parametrize("name", sorted(READS_ITS_ADDRESS))
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_a_moved_instruction_does_what_it_did_in_place(name: str, seed: int) -> None:
    state = arbitrary(seed)
    if "cx" in name or "loop" in name or "movsb" in name:
        state.registers["cx"] = (0, 1, 2, 0x20)[seed % 4] + (0x1_0000_0000 if seed & 4 and "movsb" not in name else 0)
    if name == "popfq":
        # No trap flag and no other that changes how the emulator goes on.
        state.stack = bytes(STACK_SIZE)
    same(*both(READS_ITS_ADDRESS[name], state))


@pytest.mark.parametrize("name", ["mov r64, [rip]", "call rel32", "call [rip]", "loop rel8", "jmp rel32", "j4 rel32"])
@pytest.mark.parametrize("copy_at", [ORIGINAL - 0x6000_0000, ORIGINAL + 0x2000, ORIGINAL + 0x7000_0000])
def test_a_copy_works_below_and_above_its_original(name: str, copy_at: int) -> None:
    for seed in range(4):
        same(*both(READS_ITS_ADDRESS[name], arbitrary(seed), copy_at))


# A counted loop, a forward hop and a jump back into the first instructions: all of it moved together.
BLOCK = bytes.fromhex(
    "b905000000"  # 0: mov ecx, 5
    "4801c8"  # 5: add rax, rcx
    "a801"  # 8: test al, 1
    "7403"  # a: je 0xf
    "480fc8"  # c: bswap rax
    "e2f4"  # f: loop 5
    "e302"  # 11: jrcxz 0x15
    "ebee"  # 13: jmp 5
    "90"  # 15: nop
)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_branches_among_moved_instructions_stay_in_the_copy(seed: int) -> None:
    state, end = arbitrary(seed), ORIGINAL + len(BLOCK)
    moved = relocate(decode(BLOCK, ORIGINAL), COPY)
    first = run({ORIGINAL: BLOCK}, state, start=ORIGINAL, inside=lambda ip: ORIGINAL <= ip < end)
    # The original isn't even mapped here, so a branch that left the copy would show in where it ends.
    second = run({COPY: moved.code}, state, start=COPY, inside=lambda ip: COPY <= ip < COPY + len(moved.code))
    assert second.ip == COPY + len(moved.code)
    second.ip = end
    same(first, second)


def test_the_offset_map_leads_from_each_instruction_to_its_copy() -> None:
    instructions = decode(BLOCK, ORIGINAL)
    moved = relocate(instructions, COPY)
    assert list(moved.offsets) == [instruction.address for instruction in instructions]
    bswap = moved.offsets[ORIGINAL + 0xC]
    assert moved.code[bswap : bswap + 3] == bytes.fromhex("480fc8")


def test_a_call_pushes_the_return_address_of_its_own_place() -> None:
    state = arbitrary(1)
    moved = relocate(decode(READS_ITS_ADDRESS["call rel32"], ORIGINAL), COPY)
    end = COPY + len(moved.code)
    after = run({COPY: moved.code}, state, start=COPY, inside=lambda ip: COPY <= ip < end)
    top = after.registers["sp"] - STACK
    assert struct.unpack_from("<Q", after.stack, top) == (ORIGINAL + 5,)
    assert after.ip == FAR


REFUSED = {
    "int3": ("cc", "int3"),
    "int 3": ("cd03", "int 0x3"),
    "int1": ("f1", "int1"),
    "ud2": ("0f0b", "ud2"),
    "ud1": ("0fb9c0", "ud1"),
    "hlt": ("f4", "privileged"),
    "cli": ("fa", "privileged"),
    "in al, dx": ("ec", "privileged"),
    "retf": ("cb", "far return"),
    "iretq": ("48cf", "interrupt return"),
    "far call": ("48ff18", "far call"),
    "far jmp": ("48ff28", "far call or jump"),
    "vmcall": ("0f01c1", "VMX"),
    "vmlaunch": ("0f01c2", "VMX"),
    "sysretq": ("480f07", "privileged"),
    "xbegin rel16": ("66c7f80001", "16-bit"),
    "data16 call without REX.W": ("66e800000000", "AMD"),
    "data16 jmp": ("66eb05", "AMD"),
    "call ax": ("66ffd0", "AMD"),
    "call rsp": ("ffd4", "stack pointer"),
    "call [rsp-8]": ("ff5424f8", "return address"),
    "not an instruction": ("06", "not an instruction"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cant_run_elsewhere_is_refused_by_reason(name: str) -> None:
    raw, reason = REFUSED[name]
    with pytest.raises(UnsafeSiteError, match=reason) as caught:
        relocate(decode(bytes.fromhex(raw), ORIGINAL), COPY)
    assert caught.value.place == f"{ORIGINAL:#x}"


@pytest.mark.parametrize("name", ["mov r64, [rip]", "call [rip]", "call rel32", "j4 rel32", "loop rel8"])
@pytest.mark.parametrize("away", [-(2**32), 2**32])
def test_a_copy_out_of_reach_is_refused(name: str, away: int) -> None:
    with pytest.raises(UnsafeSiteError, match=r"2 GiB|out of reach"):
        relocate(decode(READS_ITS_ADDRESS[name], ORIGINAL), ORIGINAL + away)


@pytest.mark.parametrize("copy_at", [0x10_0000, 0x7000_0000, 0x9000_0000, 0xF000_0000])
def test_an_eip_relative_operand_wraps_at_4_gib(copy_at: int) -> None:
    raw = bytes.fromhex("678b05") + struct.pack("<i", 0x1234)  # mov eax, [eip + 0x1234]
    instruction = decode(raw, 0x1000)[0]
    assert instruction.data == 0x1000 + 7 + 0x1234
    moved = decode(relocate([instruction], copy_at).code, copy_at)[0]
    assert moved.data == instruction.data
