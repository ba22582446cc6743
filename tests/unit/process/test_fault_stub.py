"""What a stopped thread runs for a fault handler is what the assembler makes of its source, and calls `enter`."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kprobes.engines.process.faults import TOUCH_SIZE
from kprobes.engines.process.handlers import FAULT_STUB_SIZE, Handlers
from kprobes.engines.process.stubs import SELF, routine
from kprobes.model.plan import ON_FAULT, NativeProgram

SOURCE = Path(__file__).parents[2] / "golden" / "process" / "fault.s"
ROUTINES, START = 0x10000, 0x20000
RETURN = b"\xc3"


@pytest.mark.skipif(not shutil.which("as"), reason="needs binutils")
def test_the_stub_is_what_its_source_assembles_to(tmp_path: Path) -> None:
    subprocess.run(["as", SOURCE, "-o", tmp_path / "out.o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", tmp_path / "out.o", tmp_path / "out.bin"], check=True)
    expected = (tmp_path / "out.bin").read_bytes()
    handlers, content = Handlers((NativeProgram("h", RETURN, part=ON_FAULT),), {}, SELF), bytearray()
    handlers.place(content, START, ROUTINES)
    stub = content[handlers.fault_stub - START :]
    call = slice(TOUCH_SIZE + 1, TOUCH_SIZE + 5)
    assert handlers.fault_stub + call.stop + struct.unpack("<i", stub[call])[0] == routine(ROUTINES, SELF)
    stub[call] = bytes(4)
    assert bytes(stub) == expected
    assert len(stub) <= FAULT_STUB_SIZE
    assert len(content) <= handlers.size


def test_there_is_none_without_a_fault_handler() -> None:
    handlers, content = Handlers((NativeProgram("h", RETURN),), {}, SELF), bytearray()
    handlers.place(content, START, ROUTINES)
    assert (handlers.fault_stub, bytes(content)) == (0, RETURN)
