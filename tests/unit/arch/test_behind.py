from __future__ import annotations

import pytest

from kprobes.arch.x86_64.behind import refusal_behind, stack_change
from kprobes.arch.x86_64.decode import Instruction, decode

ENTRY = 0x40_0000


def instruction(code: str) -> Instruction:
    return decode(bytes.fromhex(code), ENTRY)[0]


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("4883c003", 0),  # add rax, 3
        ("55", -8),  # push rbp
        ("6655", -2),  # push bp
        ("5d", 8),  # pop rbp
        ("4883ec28", -0x28),  # sub rsp, 0x28
        ("4881ec00100000", -0x1000),  # sub rsp, 0x1000
        ("4883c480", -0x80),  # add rsp, -0x80
        ("488d6424e8", -0x18),  # lea rsp, [rsp - 0x18]
        ("488da42400010000", 0x100),  # lea rsp, [rsp + 0x100]
        ("e800000000", -8),  # call
        ("eb10", 0),  # jmp
        ("7410", 0),  # jz
        ("9c", -8),  # pushf
        ("48890424", 0),  # mov [rsp], rax
        ("f348a5", 0),  # rep movsq
        ("5c", None),  # pop rsp
        ("c9", None),  # leave
        ("c8100000", None),  # enter 16, 0
        ("4889ec", None),  # mov rsp, rbp
        ("4883e4f0", None),  # and rsp, -16
        ("4801c4", None),  # add rsp, rax
        ("488d2424", 0),  # lea rsp, [rsp]
        ("488d2404", None),  # lea rsp, [rsp + rax]
        ("83c410", None),  # add esp, 16
        ("48ffc4", None),  # inc rsp
        ("4894", None),  # xchg rsp, rax
    ],
)
def test_the_stack_pointer_moves_by_what_the_instruction_says(code: str, change: int | None) -> None:
    item = instruction(code)
    assert stack_change(item) == change
    assert bool(refusal_behind(item)) == (change is None)


@pytest.mark.parametrize("code", ["c3", "ffe0", "ffd0", "ff25 00000000", "c7f8 00000000", "0f0b"])
def test_nothing_runs_behind_what_leads_nobody_knows_where(code: str) -> None:
    assert "nothing can run behind" in refusal_behind(instruction(code))
