"""Definitions on frames that a test describes: by the interpreter, and by native code in this very process."""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass, field
from random import Random

from back.machine import own_world
from native.native_machine import NativeMachine

from kprobes.compiler.fetch.lower import lower_definition
from kprobes.compiler.fetch.place import Surroundings
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.nodes import Handler
from kprobes.compiler.ir.verify import verify
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.events.decode import Decoder
from kprobes.grammar.events import parse
from kprobes.grammar.filter import fields_of, parse_filter
from kprobes.model.definition import Definition
from kprobes.model.fetched import HEAD

NAMES = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "ax", "orig_ax", "ip", "cs", "flags", "ss")
SYMBOLS = {"jiffies": 0xFFFFFFFF81000100, "linux_banner": 0xFFFFFFFF81000200}


def compiled(line: str, kind: str = "kprobe", kernel: str = "7.2", condition: str = "", **options: bool) -> Handler:
    """Return the handler of the definition *line*, verified."""
    found = parse(line, kernel, kind)
    assert isinstance(found, Definition)
    wanted = parse_filter(condition, fields_of(found), kernel) if condition else None
    around = Surroundings(found, line, lambda name: SYMBOLS.get(name, 0), **options)
    handler = lower_definition(around, wanted)
    verify(handler)
    return handler


@dataclass
class Hit:
    """What a hit in the kernel brings along."""

    registers: dict[str, int] = field(default_factory=dict)
    memory: dict[tuple[str, int], bytes] = field(default_factory=dict)
    result: int = 0
    returns: dict[str, int] | None = None
    comm: bytes = b"cat"


def fetched(handler: Handler, hit: Hit) -> dict[str, object] | None:
    """Return the arguments of the event that *handler* sends for *hit*, None where it sends none."""
    world = DryWorld(hit.memory, {"now": 5, "cpu": 1, "pid": 70, "tid": 71}, {"comm": hit.comm})
    interpreter = Interpreter(handler, world)
    ip = hit.registers.get("ip", 0xFFFFFFFF81234568)
    registers = {**dict.fromkeys((*NAMES, "di", "si", "dx", "cx", "r8", "r9", "sp"), 0), "ip": ip, **hit.registers}
    interpreter.enter(Frame(registers=registers, function=ip - 1))
    interpreter.leave(Frame(registers={**registers, **(hit.returns or {})}, result=hit.result, function=ip - 1))
    return arguments(handler, world.records)


def arguments(handler: Handler, records: list[bytes]) -> dict[str, object] | None:
    """Return the arguments in the only one of *records*."""
    events = Decoder(handler.events, ["site"]).decode(records)
    assert len(events) <= 1
    return {name: value for name, value in events[0].fields.items() if name not in HEAD} if events else None


class Region:
    """Memory of this process, full of pointers into itself, numbers and texts; *middle* lies far from its ends."""

    SIZE = 1 << 16

    def __init__(self, seed: int) -> None:
        dice = Random(seed)
        self.memory = mmap.mmap(-1, self.SIZE)
        self.buffer = (ctypes.c_char * self.SIZE).from_buffer(self.memory)
        self.base = ctypes.addressof(self.buffer)
        self.middle = self.base + self.SIZE // 2
        for at in range(0, self.SIZE, 8):
            self.memory[at : at + 8] = self._word(dice)

    def _word(self, dice: Random) -> bytes:
        kind = dice.randrange(8)
        if kind < 4:
            return struct.pack("<Q", self.middle + dice.randrange(-2000, 2000))
        if kind == 4:
            return struct.pack("<q", dice.choice([0, 1, -1, 4096, 0x7FFFFFFF, 1 << 62, -(1 << 63)]))
        if kind == 5:
            return bytes(dice.randrange(256) for _ in range(8))
        return bytes(dice.choice(b"abc/_.-\0") for _ in range(8))

    @property
    def world(self) -> DryWorld:
        """Return this memory as a world of the interpreter's."""
        return own_world([self.buffer])


def natively(handler: Handler, region: Region, words: list[int]) -> tuple[dict[str, object] | None, int]:
    """Return the arguments that native code sends with *words* in the argument registers, and the faults."""
    with NativeMachine(handler) as machine:
        machine.run(words, stack=region.middle)
        outcome = machine.outcome()
    return arguments(handler, outcome.records), outcome.counters[3]


def interpreted(handler: Handler, region: Region, words: list[int]) -> tuple[dict[str, object] | None, int]:
    """Return the same by the interpreter."""
    world = region.world
    interpreter = Interpreter(handler, world)
    names = ("di", "si", "dx", "cx", "r8", "r9")
    registers = {**dict.fromkeys(NAMES, 0), **dict(zip(names, words, strict=True)), "sp": region.middle}
    interpreter.enter(Frame(registers=registers))
    return arguments(handler, world.records), interpreter.counters.faults
