"""Runs handlers on the running kernel's BPF machine, and on the interpreter, and says what came of it.

A raw tracepoint program can be run by BPF_PROG_TEST_RUN with the arguments that one likes, in this very process, so
that its reads of user memory reach the buffers of the test.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import ExitStack
from dataclasses import dataclass, field

from kprobes.compiler.back.bpf import BpfTarget, lower
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.maps import KernelMap
from kprobes.engines.kernel.program import Binding, Loader
from kprobes.engines.kernel.ring import Ring

_TEST_RUN = 10
ARGUMENTS = 12  # what the kernel gives a raw tracepoint
U64 = (1 << 64) - 1


@dataclass
class Outcome:
    """What a handler left behind: counters (hits, missed, lost, faults), records, maps."""

    counters: tuple[int, ...]
    records: list[bytes]
    maps: dict[str, dict[bytes, bytes]] = field(default_factory=dict)


class BpfMachine:
    """The programs of one handler, loaded; a context manager."""

    def __init__(self, handler, target):
        self.handler = handler
        self.target = target
        self.lowered = lower(handler, target)
        self._stack = ExitStack()
        layouts = {layout.name: layout for layout in (*handler.maps, *self.lowered.maps)}
        self.maps = {name: self._hold(KernelMap(layout)) for name, layout in layouts.items()}
        loader = self._hold(Loader({name: one.fd for name, one in self.maps.items()}))
        site = target.site or 0
        self.programs = [loader.load(program, Binding(site=site)) for program in self.lowered.programs]
        for fd in self.programs:
            self._stack.callback(os.close, fd)
        self.ring = None
        if ".ring" in self.maps:
            ring = self.maps[".ring"]
            self.ring = self._hold(Ring(ring.fd, ring.layout.max_entries))

    def _hold(self, thing):
        self._stack.callback(thing.close)
        return thing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def run(self, arguments, program=0):
        """Run a raw tracepoint program with *arguments*."""
        words = [argument & U64 for argument in arguments] + [0] * (ARGUMENTS - len(arguments))
        context = ctypes.create_string_buffer(struct.pack(f"<{ARGUMENTS}Q", *words))
        attributes = ctypes.create_string_buffer(
            struct.pack(
                "<IIIIQQIIIIQQII",
                self.programs[program], 0, 0, 0, 0, 0, 0, 0, 8 * ARGUMENTS, 0, ctypes.addressof(context), 0, 0, 0,
            ),
            128,
        )  # fmt: skip
        result = syscall._bpf(_TEST_RUN, attributes)
        assert result == 0, os.strerror(-result)

    def counters(self):
        ((_, value),) = self.maps[".stats"].read()
        words = struct.unpack(f"<{len(value) // 8}Q", value)
        return tuple(sum(words[index::4]) for index in range(4))

    def outcome(self):
        records = []
        while self.ring and (span := self.ring.poll_raw()).data:
            records += span.records()
        return Outcome(self.counters(), records, {m.name: self.read(m.name) for m in self.handler.maps})

    def read(self, name):
        """Return a map as a dict; the shards of one without key are summed."""
        one = self.maps[name]
        if one.layout.kind == "queue":
            return {}
        return {key: value if key else _sum(one.layout, value) for key, value in one.read()}


def _sum(layout, value):
    if layout.kind not in ("count", "histogram"):
        return value
    words = struct.unpack(f"<{len(value) // 8}Q", value)
    each = len(words) // layout.shards
    return struct.pack(f"<{each}Q", *(sum(words[index::each]) & U64 for index in range(each)))


def raw_target(**options):
    return BpfTarget(entry_way="raw_tracepoint", **{"sites": 1, "site": 0, "shards": 4, **options})


def run_bpf(handler, hits, **options):
    with BpfMachine(handler, raw_target(**options)) as machine:
        for arguments in hits:
            machine.run(arguments)
        return machine.outcome()


def run_interpreter(handler, hits, world=None):
    interpreter = Interpreter(handler, world or own_world())
    for arguments in hits:
        words = [argument & U64 for argument in arguments]
        interpreter.enter(Frame(arguments=(*words, *[0] * (ARGUMENTS - len(words)))))
    counters = interpreter.counters
    maps = {}
    for layout in handler.maps:
        pairs = dict(interpreter.read_map(layout.name))
        maps[layout.name] = pairs if layout.key else {b"": _sum(layout, pairs[b""])}
    return Outcome((counters.hits, counters.missed, counters.lost, counters.faults), interpreter.world.records, maps)


def own_world(memory=()):
    """This process as a world; *memory* are ctypes buffers that can be read as user memory."""
    regions = {("user", ctypes.addressof(buffer)): bytes(buffer.raw) for buffer in memory}
    numbers = {"pid": os.getpid(), "tid": os.getpid(), "uid": os.getuid(), "gid": os.getgid()}
    with open("/proc/self/comm", "rb") as file:  # noqa: PTH123
        comm = file.read().rstrip(b"\n")
    return DryWorld(regions, numbers, {"comm": comm})
