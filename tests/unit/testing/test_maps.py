"""Each sort of map holds in plain Python what it holds on the interpreter."""

import pytest
from back.map_cases import CASES, compiled
from back.test_maps_agree import interpreted
from front.universe import Universe

from kprobes import Stacks, comm, emit
from kprobes.events.aggregate import read_map
from kprobes.model.mapspec import MapSpec
from kprobes.model.probe import HandlerSource, Probe
from kprobes.testing import Frame, run

where = Stacks("where", by=int)


@pytest.mark.parametrize("name", [name for name in CASES if name != "structs"])
def test_maps_hold_the_same(name):
    handler, hits = compiled(name)
    theirs = interpreted(handler, hits)
    program = theirs.world.text("comm").decode()
    source, names, _ = CASES[name]
    known = {**names, "comm": comm, "emit": emit}
    prototype = Universe().function("ints")
    frames = [Frame(given, types=Universe(), prototype=prototype, comm=program) for given in hits]
    done = run(Probe("kprobe", ("ints",), HandlerSource("h", source, "script.py", 10, 4, known)), *frames)
    assert done.faults == theirs.counters.faults
    wanted = {layout.name: read_map(theirs.read_map(layout.name), layout) for layout in handler.maps}
    assert {one.name: done[one] for one in names.values() if isinstance(one, MapSpec)} == wanted


def test_stacks_are_those_of_the_frame():
    def note():
        where.add(by=7)

    assert run(note, Frame({}, stack=5))[where] == {(5, 7): 1}
