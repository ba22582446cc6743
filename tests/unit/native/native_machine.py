"""Runs native handlers in this very process, on memory laid out as in a target, and says what came of it."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

from back.machine import ARGUMENTS, U64, Outcome, _sum

from kprobes.arch.x86_64.registers import ARGUMENTS as REGISTER_ARGUMENTS
from kprobes.arch.x86_64.registers import PT_REGS_SIZE, REGISTERS
from kprobes.compiler.back.native import NativeTarget, lower_native
from kprobes.engines.process.handlers import Handlers
from kprobes.engines.process.layout import BLOCK_RING, SharedLayout, is_keyed, region_size, slots_of
from kprobes.engines.process.procfs import read_maps
from kprobes.engines.process.ring import Ring, split
from kprobes.engines.process.stubs import SHARED, routines
from kprobes.engines.process.tables import read_region
from kprobes.engines.process.world import Clock, World
from kprobes.model.layout import SITE_COUNTERS
from kprobes.model.shared import BLOCK_COMM, BLOCK_PID, BLOCK_TID
from kprobes.planner.process import _shared_out

RING = 1 << 20
OWNER = 0x1000


class NativeMachine:
    """The parts of one handler, ready to be called; a context manager."""

    def __init__(self, handler, *, may_call=True, sites=1, ring=RING):
        self.handler = handler
        counted = 2 * sites if handler.entry and handler.exit else sites
        self.programs, implicit = lower_native(handler, NativeTarget(sites, counted))
        self.layouts = [_shaped(one) for one in handler.maps] + list(implicit)
        private = sum(one.value_size for one in implicit if one.kind == "frames")
        regions = tuple(region_size(one) for one in self.layouts)
        self.layout = SharedLayout(counted, 0, 2, regions, ring, private)
        self.shared = mmap.mmap(-1, self.layout.size)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.shared))
        self.private = ctypes.create_string_buffer(max(private, 8))
        self.block = self.layout.blocks_at
        self._fill(may_call)
        self._load()
        self.hits = 0

    def _fill(self, may_call):
        at = self.block
        struct.pack_into("<QII", self.shared, at, OWNER, os.getpid(), os.getpid())
        assert (BLOCK_TID, BLOCK_PID) == (8, 12)
        with open("/proc/self/comm", "rb") as file:  # noqa: PTH123
            comm = file.read().rstrip(b"\n")
        self.shared[at + BLOCK_COMM : at + BLOCK_COMM + 16] = comm.ljust(16, b"\0")
        struct.pack_into("<QQ", self.shared, at + BLOCK_RING, self.base + self.layout.rings_at, self.layout.ring_size)
        self.symbols = {}
        for number, one in enumerate(self.layouts):
            start = self.layout.region_at(number)
            self.symbols[one.name] = self.base + start
            if one.kind == "frames":
                self.symbols[one.name] = ctypes.addressof(self.private)
            elif one.kind == "world":
                World(self.shared, start, Clock()).fill(os.getpid(), read_maps(os.getpid()))
                if not may_call:
                    struct.pack_into("<I", self.shared, start + 20, 0)
            elif is_keyed(one):
                struct.pack_into("<Q", self.shared, start, slots_of(one))

    def _load(self):
        self.code = mmap.mmap(-1, 1 << 20, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        content = bytearray(routines(self.layout, self.base, 0, 0))
        handlers = Handlers(self.programs, self.symbols, SHARED)
        handlers.place(content, start, start)
        self.code[: len(content)] = bytes(content)
        signature = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p)
        self.functions = [signature(handlers.entries[number]) for number in range(len(self.programs))]
        self.ring = Ring(memoryview(self.shared), self.layout.rings_at, self.layout.ring_size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ring.close()

    def run(self, arguments, *, program=-1, site=0, result=0, stack=0):
        """Call a part with *arguments*; return what it says and the pt_regs that it leaves."""
        words = [argument & U64 for argument in arguments] + [0] * (ARGUMENTS - len(arguments))
        frame = ctypes.create_string_buffer(struct.pack("<Q", 0x1234) + struct.pack(f"<{ARGUMENTS - 6}Q", *words[6:]))
        registers = bytearray(PT_REGS_SIZE)
        values = dict(zip(REGISTER_ARGUMENTS, words, strict=False)) | {"ax": result & U64}
        values["sp"] = stack or ctypes.addressof(frame)
        for name, value in values.items():
            struct.pack_into("<Q", registers, REGISTERS[name], value)
        buffer = ctypes.create_string_buffer(bytes(registers), len(registers))
        part = self.programs[program].part
        self.hits += part != "return"
        number = site + self.layout.sites // 2 if part == "return" else site
        said = self.functions[program](ctypes.addressof(buffer), number, self.base + self.block)
        return said, buffer.raw

    def counters(self):
        at = self.block + self.layout.counter(0)
        found = [struct.unpack_from("<q", self.shared, at + 8 * kind * self.layout.sites)[0] for kind in range(4)]
        found[0] += self.hits  # what `enter` would have counted
        assert len(SITE_COUNTERS) == 4
        return tuple(found)

    def outcome(self):
        return Outcome(self.counters(), split(self.ring.take()), {one.name: self.read(one) for one in self.layouts})

    def read(self, layout):
        number = self.layouts.index(layout)
        pairs = read_region(self.shared, self.layout.region_at(number), layout) if self.layout.regions[number] else []
        if layout.kind == "queue":
            return {}
        if layout.kind in ("count", "histogram") and not layout.key:
            return {b"": _sum(layout, pairs[0][1])}
        return dict(pairs)


def _shaped(layout):
    return _shared_out(layout)


def run_native(handler, hits, **options):
    with NativeMachine(handler, **options) as machine:
        for arguments in hits:
            machine.run(arguments)
        found = machine.outcome()
        return Outcome(found.counters, found.records, {one.name: found.maps[one.name] for one in handler.maps})
