"""uprobes on a program of our own, through real bpf(2) calls."""

import struct

import pytest
from bpf_assembly import EXIT, R0, Code, add_to, emit, movi

from kprobes.engines.kernel.engine import KernelEngine
from kprobes.model.layout import MapLayout
from kprobes.model.plan import Attachment, Plan, PlannedProbe, Site, Way

STATS = MapLayout("stats", "stats", 4, 32, 1, shards=1)
RING = MapLayout("ring", "ring", 0, 0, 1 << 20)


def plan(sites, programs, maps=(STATS, RING), attachments=None, pid=-1):
    attachments = attachments or (Attachment(0, tuple(range(len(sites))), pid=pid),)
    probe = PlannedProbe("uprobe", "test", (programs[0].way,))
    return Plan((probe,), tuple(sites), tuple(maps), tuple(programs), tuple(attachments), ())


def counter(way=Way.UPROBE):
    return add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(way)


def site(victim, offsets, name="work"):
    return Site(0, name, symbol=name, path=str(victim.path), address=offsets[name])


@pytest.fixture
def engine():
    with KernelEngine() as made:
        yield made


def hits(attached):
    ((_, value),) = attached.read_map("stats")
    return struct.unpack_from("<Q", value)[0]


def test_counts_are_exact(engine, victim, offsets):
    attached = engine.attach(plan([site(victim, offsets)], [counter()]))
    victim.call("w", 1234)
    attached.detach()
    victim.call("w", 100)
    assert hits(attached) == 1234
    assert [stats.missed for stats in attached.link_stats()] == [0]
    attached.close()


def test_records_carry_the_arguments(engine, victim, offsets):
    program = emit(Code(), "ring").add(movi(R0, 0), EXIT).program(Way.UPROBE)
    attached = engine.attach(plan([site(victim, offsets)], [program]))
    victim.call("w", 5)
    records = []
    while len(records) < 5:
        records += attached.poll(1)
    assert [struct.unpack_from("<IIQQ", record)[3] for record in records] == [0, 1, 2, 3, 4]
    assert attached.poll(0.01) == []
    attached.close()
