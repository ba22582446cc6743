"""What the maps of a plan begin with, in the memory that is shared with the target."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kprobes.engines.process.arming import Objects
from kprobes.engines.process.layout import OWNER_TABLE_SIZE, is_keyed, slots_of
from kprobes.engines.process.unwinding import fill_unwinding
from kprobes.engines.process.world import Clock, World
from kprobes.model.layout import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.area import Area
    from kprobes.engines.process.procfs import Mapping
    from kprobes.model.plan import Plan


def place_maps(area: Area, plan: Plan, clock: Clock | None, pid: int, mappings: Sequence[Mapping]) -> dict[str, int]:
    """Fill in the beginnings of *plan*'s maps in *area* of the process *pid*; return their addresses there by name."""
    found = {}
    private = area.table + OWNER_TABLE_SIZE
    for number, one in enumerate(plan.maps):
        if one.kind == "frames":
            found[one.name] = private
            private += align_up(one.value_size, 8)
            continue
        at = area.layout.region_at(number)
        if not area.layout.regions[number]:
            continue
        if one.kind == "world":
            World(area.shared, at, clock or Clock()).fill(pid, mappings)
        elif one.kind == "unwind":
            fill_unwinding(area.shared, at, one.value_size, plan.unwinding, Objects(pid, mappings))
        elif is_keyed(one):
            struct.pack_into("<Q", area.shared, at, slots_of(one))
        else:
            area.shared[at : at + len(one.initial)] = one.initial
        found[one.name] = area.base + at
    return found
