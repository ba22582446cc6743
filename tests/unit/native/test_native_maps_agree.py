"""Every sort of map holds the same in native code and on the interpreter."""

import struct

import pytest
from back.map_cases import CASES, compiled, content, dropped
from back.test_maps_agree import interpreted

from kprobes.engines.process.tables import read_region, take_queue
from native.native_machine import NativeMachine


@pytest.mark.parametrize("name", CASES)
def test_native_code_holds_what_the_interpreter_holds(name):
    handler, hits = compiled(name)
    theirs = interpreted(handler, hits)
    with NativeMachine(handler) as ours:
        for hit in hits:
            ours.run(hit)
        outcome = ours.outcome()
        assert outcome.records == theirs.world.records
        counted = theirs.counters
        assert outcome.counters == (counted.hits, counted.missed, counted.lost, counted.faults)
        by_name = {one.name: (number, one) for number, one in enumerate(ours.layouts)}

        def read(map_name):
            number, layout = by_name[map_name]
            start = ours.layout.region_at(number)
            if layout.kind == "queue":
                return [(b"", value) for value in take_queue(ours.shared, start, layout)]
            return read_region(ours.shared, start, layout)

        shaped = [by_name[one.name][1] for one in handler.maps]
        assert content(shaped, read) == content(handler.maps, theirs.read_map)
        metas = {name[6:]: struct.unpack("<QQ", read(name)[0][1])[1] for name in by_name if name.startswith(".meta.")}
        assert {name: number for name, number in metas.items() if number} == dropped(theirs)
