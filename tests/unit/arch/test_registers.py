from __future__ import annotations

import pytest

from kprobes.arch.registers import TABLES, registers
from kprobes.arch.x86_64 import registers as x86_64
from kprobes.errors import UnsupportedError


def test_x86_64_pt_regs_is_21_words_in_the_kernels_order() -> None:
    assert x86_64.PT_REGS_SIZE == 168
    assert len(x86_64.PT_REGS) == 21
    known = {"r15": 0, "bp": 32, "bx": 40, "ax": 80, "cx": 88, "dx": 96, "si": 104, "di": 112, "orig_ax": 120}
    known |= {"ip": 128, "cs": 136, "flags": 144, "sp": 152, "ss": 160}
    assert {name: x86_64.REGISTERS[name] for name in known} == known


@pytest.mark.parametrize("name", ["bp", "bx", "ax", "cx", "dx", "si", "di", "ip", "sp"])
def test_both_spellings_mean_the_same_register(name: str) -> None:
    assert x86_64.REGISTERS[f"r{name}"] == x86_64.REGISTERS[name]
    assert registers("i386").offsets[f"e{name}"] == registers("i386").offsets[name]


def test_the_fourth_argument_of_a_system_call_is_r10() -> None:
    assert x86_64.ARGUMENTS[3] == "cx"
    assert x86_64.SYSCALL_ARGUMENTS[3] == "r10"


@pytest.mark.parametrize(("arch", "size"), [("x86_64", 168), ("i386", 68), ("aarch64", 272)])
def test_sizes_are_the_kernels(arch: str, size: int) -> None:
    assert registers(arch).size == size


@pytest.mark.parametrize("arch", sorted(TABLES))
def test_every_named_register_has_an_offset(arch: str) -> None:
    table = registers(arch)
    named = {*table.arguments, *table.kernel_arguments, *table.syscall_arguments, table.syscall_number}
    named |= {table.result, table.instruction_pointer, table.stack_pointer, table.flags}
    assert named <= set(table.offsets)
    assert sorted(set(table.offsets.values())) == list(range(0, table.size, table.word_size))


def test_uname_spellings_are_understood_and_others_refused() -> None:
    assert registers("amd64") is registers("x86_64")
    assert registers("i686").kernel_arguments == ("ax", "dx", "cx")
    with pytest.raises(UnsupportedError, match="riscv64") as caught:
        registers("riscv64")
    assert "x86_64" in caught.value.hint
