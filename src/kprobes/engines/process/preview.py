"""How the sites of a plan would be armed in a process, without touching it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.arming import Objects, arrange
from kprobes.engines.process.listing import rows_of
from kprobes.engines.process.memory import ProcessMemory, free_rooms
from kprobes.engines.process.target import identify

if TYPE_CHECKING:
    from kprobes.model.listed import Listed
    from kprobes.model.plan import Plan


def preview(pid: int, plan: Plan, *, held: bool = False) -> list[Listed]:
    """Return how each site of *plan* would be armed in the process *pid* as it is now; *held*: by an engine of ours.

    Raises:
        UnprobeableError: one can't be; TargetError, PrivilegeError, UnsupportedError: the process can't be probed.
    """
    if not held:
        identify(pid)
    lead = procfs.live_thread(pid)
    mappings = procfs.read_maps(lead)
    with ProcessMemory(lead) as memory:
        numbers = range(len(plan.sites))
        found = arrange(plan, numbers, Objects(pid, mappings), memory, free_rooms(mappings))
    return rows_of(plan, found.armed, frozenset(), frozenset())
