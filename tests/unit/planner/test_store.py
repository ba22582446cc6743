"""Plans in our own cache."""

from __future__ import annotations

import pytest

from kprobes.errors import FormatError
from kprobes.frozen import replace
from kprobes.model import caution, layout, plan
from kprobes.model.store import KINDS, plan_from_store, plan_to_store

PLAN = plan.Plan(
    probes=(plan.PlannedProbe("kprobe", "vfs_read", ("fentry",)),),
    sites=(plan.Site(0, "vfs_read", symbol="vfs_read", address=1 << 63),),
    maps=(
        layout.MapLayout("m", "hash", 8, 8, 10, key=(layout.Field("key", "int", 0, 8),), initial=b"\0\xff"),
        layout.MapLayout("h", "histogram", 4, 8, 1, buckets=layout.Buckets("linear", -5, 2, 9)),
    ),
    programs=(
        plan.Program(
            "p",
            "fentry",
            bytes(range(256)),
            relocations=(plan.Relocation(0, "map", "m", 8),),
            lines=(plan.SourceLine(0, "f.py", 3, 4, "x = '\udc80é'"),),
        ),
    ),
    attachments=(plan.Attachment(0, (0,), pid=7),),
    events=(layout.EventLayout(1, "e", 16, (layout.Field("f", "int", 8, 8),), template="{f}"),),
    key="k",
    notes=("n",),
    natives=(plan.NativeProgram("n", b"\xc3", relocations=(plan.NativeRelocation(0, "map", "m"),)),),
    objects=(plan.CodeObject("/bin/x", ((0, 4), (8, 9)), (5,)),),
    cautions=(caution.Caution("what", "hint", "f.py", 3, 4, "x = 5"),),
)


def test_a_plan_comes_back_as_it_was():
    assert plan_from_store(plan_to_store(PLAN)) == PLAN


def test_every_class_that_a_plan_is_made_of_can_be_stored():
    named = {kind.__name__ for kind in KINDS}
    for kind in KINDS:
        for annotation in kind.__annotations__.values():
            inner = annotation.removesuffix(" | None")
            while inner.startswith("tuple["):
                inner = inner[6:-1].removesuffix(", ...")
            assert all(word in named | {"int", "str", "bool", "bytes"} for word in inner.split(", ")), annotation


def test_any_damage_is_noticed():
    data = plan_to_store(PLAN)
    for place in range(0, len(data), 7):
        with pytest.raises(FormatError):
            plan_from_store(data[:place])
        with pytest.raises(FormatError):
            plan_from_store(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def test_a_plan_of_another_version_is_refused():
    with pytest.raises(FormatError, match="version"):
        plan_from_store(plan_to_store(replace(PLAN, version=plan.PLAN_VERSION + 1)))
