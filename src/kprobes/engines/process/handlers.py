"""Native handlers in the target: where their code stands, and the code around each call.

Around a handler stands what saves the registers, lays out `struct pt_regs`, and asks the routine `enter` whether it may
run: not while the thread runs another (`missed`). The block that `enter` found is kept in the field `orig_ax`, which
has no meaning outside of system calls, so that the way out can clear the guard.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.engines.process.layout import BLOCK_GUARD
from kprobes.engines.process.stubs import routine
from kprobes.errors import InternalError
from kprobes.model.plan import ON_FAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kprobes.arch.x86_64.detour import Code
    from kprobes.engines.process.stubs import Live
    from kprobes.model.plan import NativeProgram

ALIGNMENT = 16
LONGEST_HANDLER = 768  # bytes that one handler's call adds to a detour, at most
_ORIG_AX = 0x78
# mov rcx, [rsp + orig_ax]; mov qword [rcx + guard], 0
_LEAVE = b"\x48\x8b\x4c\x24" + bytes((_ORIG_AX,)) + b"\x48\xc7\x41" + bytes((BLOCK_GUARD, 0, 0, 0, 0))
# By the call, by `enter` and by the way out.
ENTER_CLOBBERS = frozenset({"ax", "cx", "dx", "di", "si", "r10", "r11"})
HELPERS = ("reserve", "submit")
# How the hand lets a stopped thread run a handler, see `faults`; the source is tests/golden/process/fault.s, and a test
# assembles it and compares. The call's offset is filled in.
_TOUCH = bytes.fromhex("8807eb1b")
_RUN = bytes.fromhex("e800000000 7512 4989d4 ffd3 49c7442420 00000000 89c3 eb02 31db 83c8ff 0f05 0f0b")
FAULT_STUB_SIZE = 64


@dataclass(slots=True)
class Handlers:
    """The handlers of a plan in one target. *entries* are their addresses by number, once `place` has put them there;
    `fault_stub` is that of what runs them on faults.

    *symbols* are the addresses of the maps by name; *mode* tells how threads are told apart.
    """

    programs: tuple[NativeProgram, ...]
    symbols: Mapping[str, int]
    mode: str
    entries: dict[int, int] = field(default_factory=dict)
    fault_stub: int = 0

    @property
    def size(self) -> int:
        """Return an upper bound of the bytes that all of their code takes."""
        return sum(len(program.code) + ALIGNMENT for program in self.programs) + FAULT_STUB_SIZE * self.on_faults

    @property
    def on_faults(self) -> bool:
        """Tell whether one of them runs on faults."""
        return any(program.part == ON_FAULT for program in self.programs)

    def place(self, content: bytearray, start: int, routines: int) -> None:
        """Append all code to *content*, which begins at address *start*; the routines stand at *routines*."""
        for number, program in enumerate(self.programs):
            content += b"\xcc" * (-len(content) % ALIGNMENT)
            code = bytearray(program.code)
            here = start + len(content)
            for one in program.relocations:
                address = here if one.kind == "code" else self._resolve(one.kind, one.name, routines)
                struct.pack_into("<Q", code, one.offset, address + one.addend)
            self.entries[number] = here + program.entry
            content += code
        if self.on_faults:
            self.fault_stub = start + len(content)
            call = struct.pack("<i", routine(routines, self.mode) - (self.fault_stub + len(_TOUCH) + 5))
            content += _TOUCH + _RUN[:1] + call + _RUN[5:]

    def _resolve(self, kind: str, name: str, routines: int) -> int:
        if kind == "map" and name in self.symbols:
            return self.symbols[name]
        if kind == "helper" and name in HELPERS:
            return routine(routines, name)
        raise InternalError(f"native code refers to {kind} {name!r}")

    def call(
        self, number: int, site: tuple[int, int], routines: int, live: Live, *, pushed: bool, moved: int | None = None
    ) -> Callable[[int], Code]:
        """Return a body (see `arch.x86_64.detour`) that calls program *number* for *site*: (number, address).

        *moved*: by how many bytes the instruction before it has moved the stack pointer.
        """
        from kprobes.arch.x86_64 import assemble
        from kprobes.arch.x86_64.detour import EVERYTHING, GENERAL, Call, CallPolicy, Flags, Guard, handler_call
        from kprobes.arch.x86_64.registers import ALIASES

        program = self.programs[number]
        enter = routine(routines, self.mode)
        guard = Guard(lambda at: assemble.call(at, enter), lambda _at: _LEAVE)
        changes = program.writes or program.omits
        show = EVERYTHING if program.skips else frozenset(ALIASES.get(name, name) for name in program.reads)
        changed = ENTER_CLOBBERS.union(program.clobbers) - live.dead
        policy = CallPolicy(
            keep=GENERAL if program.skips or changes else tuple(sorted(changed)),
            show=frozenset(GENERAL) | show if changes else show,
            flags=Flags.KEPT if live.flags or program.omits else Flags.DEAD,
            writable=changes,
            skips=program.skips,
            omits=program.omits,
            red_zone=live.red_zone,
            clear_direction=live.direction,
            pushed=pushed,
        )
        return handler_call(Call(self.entries[number], site[0], site[1], policy, guard, moved))
