"""The routines' bytes are what the assembler makes of their source; counting code is well-formed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn.x86_const import UC_X86_REG_EFLAGS, UC_X86_REG_R10, UC_X86_REG_R11, UC_X86_REG_RAX, UC_X86_REG_RSP

from kprobes.engines.process import stubs
from kprobes.engines.process.layout import SharedLayout
from kprobes.engines.process.stubs import SHARED, Counting, Live, routine, routines

SOURCE = Path(__file__).parents[2] / "golden" / "process" / "routines.s"
CODE, BLOCKS, STACK = 0x10000, 0x40000, 0x80000


@pytest.mark.skipif(not shutil.which("as"), reason="needs binutils")
def test_routines_are_what_their_source_assembles_to(tmp_path: Path) -> None:
    subprocess.run(["as", SOURCE, "-o", tmp_path / "out.o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", tmp_path / "out.o", tmp_path / "out.bin"], check=True)
    names = subprocess.run(["nm", tmp_path / "out.o"], capture_output=True, text=True, check=True).stdout
    addresses = {line.split()[2]: int(line.split()[0], 16) for line in names.splitlines()}
    made = routines(SharedLayout(1, 0), 0, 0, 0)
    assert (tmp_path / "out.bin").read_bytes()[: addresses["table"]] == made[: addresses["table"]]
    assert len(made) == stubs.ROUTINES_SIZE == (tmp_path / "out.bin").stat().st_size
    for name, symbol in {
        "find_block": "find_block",
        stubs.SELF: "enter_self",
        stubs.REGISTER: "enter_register",
        stubs.SHARED: "enter_shared",
        "reserve": "reserve",
        "submit": "submit",
    }.items():
        assert routine(0, name) == addresses[symbol], name


@pytest.mark.parametrize("flags", [0x202, 0x246, 0xA87, 0x8D7])
@pytest.mark.parametrize("red_zone", [False, True])
def test_counting_in_the_shared_block_changes_nothing_but_the_counter(flags: int, red_zone: bool) -> None:
    layout = SharedLayout(4, 0)
    machine = Uc(UC_ARCH_X86, UC_MODE_64)
    for start in (CODE, BLOCKS, STACK):
        machine.mem_map(start, 0x20000)
    base = BLOCKS - layout.blocks_at
    machine.mem_write(CODE, routines(layout, base, 0, 0))
    counting = Counting(SHARED, CODE)
    code = bytearray()
    at = CODE + 0x1000
    assert counting.begin(code, at, layout.counter(2), Live(red_zone=red_zone)) is None
    machine.mem_write(at, bytes(code))
    sp = STACK + 0x8000
    machine.mem_write(sp - 128, bytes(range(128)))
    values = {UC_X86_REG_R10: 10, UC_X86_REG_R11: 11, UC_X86_REG_RAX: 0x1234567890, UC_X86_REG_RSP: sp}
    for register, value in values.items():
        machine.reg_write(register, value)
    machine.reg_write(UC_X86_REG_EFLAGS, flags)
    machine.emu_start(at, at + len(code))
    assert {register: machine.reg_read(register) for register in values} == values
    assert machine.reg_read(UC_X86_REG_EFLAGS) & 0x8D5 == flags & 0x8D5
    counter = machine.mem_read(BLOCKS + layout.counter(2), 8)
    assert int.from_bytes(counter, "little") == 1
    assert not red_zone or machine.mem_read(sp - 128, 128) == bytes(range(128))
