"""Plans come back equal, and nothing else gets through."""

import contextlib
import json
import struct
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.errors import FormatError
from kprobes.model import features, layout, plan, wire
from kprobes.model.features import Features
from kprobes.model.layout import Buckets, EventLayout, Field, MapLayout
from kprobes.model.plan import (
    Attachment,
    LinkStats,
    Plan,
    PlannedProbe,
    Program,
    Relocation,
    Site,
    SourceLine,
    Way,
)

PLAN = Plan(
    probes=(PlannedProbe("kprobe", "vfs_*", (Way.FENTRY, Way.FEXIT)),),
    sites=(Site(0, "vfs_read", "vfs_read", 4, 0xFFFFFFFF81234560, "", "", 77), Site(0, "ü\udce9", path="/lib/x")),
    maps=(
        MapLayout("h", "histogram", 8, 528, 1, (Field("k", "int", 0, 8),), (), Buckets("linear", -5, 10, 20), 4, b""),
        MapLayout("c", "constants", 4, 3, 1, initial=b"\0\xffx"),
    ),
    programs=(
        Program("p", Way.FENTRY, b"\x95" + bytes(7), (Relocation(0, "map_value", "c", 8),), b"BTF", b"f", b"l",
                (SourceLine(0, "a.py", 3, 4, "x = 1"),), "cookie"),
    ),
    attachments=(Attachment(0, (0, 1), 64, 12),),
    events=(EventLayout(1, "e", 24, (Field("s", "str", 8, 16),), "{s}"),),
    key="abc",
    notes=("careful",),
)  # fmt: skip


def test_a_plan_comes_back_equal():
    assert wire.plan_from_bytes(wire.plan_to_bytes(PLAN)) == PLAN


MANY = replace(
    PLAN,
    attachments=(Attachment(0, tuple(range(100))),),
    sites=tuple(Site(0, f"vfs_{one}", address=one) for one in range(3 * wire.MANY)),
)


def test_a_plan_of_many_sites_comes_back_equal():
    again = wire.plan_from_bytes(wire.plan_to_bytes(MANY))
    assert again == MANY
    with pytest.raises(AttributeError):
        again.sites[0].name = "other"


def test_many_equal_sites_come_back_equal():
    equal = replace(MANY, sites=MANY.sites[:1] * 50)
    assert wire.plan_from_bytes(wire.plan_to_bytes(equal)) == equal


@pytest.mark.parametrize(
    "columns", [None, [], [[0] * 20] * 8, [[0] * 20] * 9, [0] * 9, [{"all": 0}, ["a"], ["b", "c"]]]
)
def test_columns_that_do_not_fit_are_refused(columns):
    with pytest.raises(FormatError):
        wire._from_columns(Site, {"columns": columns})


@pytest.mark.parametrize("field", ["address", "name"])
@pytest.mark.parametrize("value", [None, 1.5, True, []])
def test_one_site_among_many_that_does_not_fit_is_refused(field, value):
    sites = list(MANY.sites)
    sites[30] = replace(sites[30], **{field: value})
    with pytest.raises(FormatError):
        wire.plan_from_bytes(wire.plan_to_bytes(replace(MANY, sites=tuple(sites))))


def test_features_come_back_with_their_three_values():
    answers = Features("k", "6.12", 2, True, False, None, True, None, True, False, "/sys/kernel/tracing")
    assert wire.from_bytes(wire.to_bytes(answers), Features) == answers


@pytest.mark.parametrize("stats", [[], [LinkStats(0, Way.KPROBE, (1, 2), -1), LinkStats(1, Way.FEXIT, (), 3)]])
def test_lists_come_back(stats):
    assert wire.list_from_bytes(wire.to_bytes(stats), LinkStats) == stats


def test_every_type_of_the_model_can_be_sent():
    for module in (features, layout, plan):
        kinds = {
            name for name, kind in vars(module).items() if is_dataclass(kind) and kind.__module__ == module.__name__
        }
        assert kinds <= set(wire.TYPES)


def test_every_field_of_every_type_has_a_reader():
    decoder = wire._Decoder(wire.to_bytes([]))
    for kind in wire.TYPES.values():
        for field in fields(kind):
            assert callable(decoder._reader(field.type))


def test_a_plan_of_another_version_is_refused():
    data = wire.plan_to_bytes(replace(PLAN, version=9))
    with pytest.raises(FormatError, match="version 9"):
        wire.plan_from_bytes(data)


def test_another_type_is_refused():
    with pytest.raises(FormatError, match="Features"):
        wire.from_bytes(wire.plan_to_bytes(PLAN), Features)


def change(data, place, value):
    """Return an encoded plan whose head has *value* at the path *place*."""
    size = struct.unpack_from("<I", data, 4)[0]
    head = json.loads(data[8 : 8 + size])
    inner = head
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    text = json.dumps(head).encode()
    return data[:4] + struct.pack("<I", len(text)) + text + data[8 + size :]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("data", 1, 0, 0), "0"),
        (("data", 1, 0, 0), True),
        (("data", 1, 0, 0), 1.0),
        (("data", 1, 0, 1), 5),
        (("data", 1, 0), ["short"]),
        (("data", 1), None),
        (("data", 3, 0, 2), 99),
        (("data", 3, 0, 2), -1),
        (("data",), "x"),
        (("blobs",), 5),
        (("blobs", 0), 10**9),
        (("blobs", 0), "8"),
        (("type",), ["Plan"]),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(place, value):
    with pytest.raises(FormatError):
        wire.plan_from_bytes(change(wire.plan_to_bytes(PLAN), place, value))


@given(st.data())
def test_a_damaged_plan_is_refused_or_still_a_plan(data):
    good = bytearray(wire.plan_to_bytes(PLAN))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for bad in (bytes(good), bytes(good[:cut])):
        with contextlib.suppress(FormatError):
            assert isinstance(wire.plan_from_bytes(bad), Plan)
