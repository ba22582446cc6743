"""Every sort of map holds the same on the kernel's BPF machine and on the interpreter."""

import os
import struct

import pytest

from back.machine import ARGUMENTS, BpfMachine, own_world, raw_target
from back.map_cases import CASES, U64, compiled, content, dropped
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.verify import verify
from kprobes.compiler.ir.world import Frame

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs takes root")


def interpreted(handler, hits):
    verify(handler)
    machine = Interpreter(handler, own_world())
    for hit in hits:
        machine.enter(Frame(arguments=(*(word & U64 for word in hit), *[0] * (ARGUMENTS - len(hit)))))
    return machine


def writes_dropped(machine):
    metas = {name.removeprefix(".meta."): one.read()[0][1] for name, one in machine.maps.items() if ".meta." in name}
    words = {name: struct.unpack("<QQ", value)[1] for name, value in metas.items()}
    return {name: number for name, number in words.items() if number}


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "without exchange"])
@pytest.mark.parametrize("name", CASES)
def test_bpf_holds_what_the_interpreter_holds(name, exchange):
    handler, hits = compiled(name)
    theirs = interpreted(handler, hits)
    with BpfMachine(handler, raw_target(compare_exchange=exchange)) as ours:
        for hit in hits:
            ours.run(hit)
        outcome = ours.outcome()
        assert outcome.records == theirs.world.records
        counted = theirs.counters
        assert outcome.counters == (counted.hits, counted.missed, counted.lost, counted.faults)
        held = content(handler.maps, lambda one: ours.maps[one].take() if one == "q" else ours.maps[one].read())
        assert held == content(handler.maps, theirs.read_map)
        assert writes_dropped(ours) == dropped(theirs)
