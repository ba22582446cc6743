"""Where probes go in one target: where its sites are, how each is armed, where detours stand. Nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.arming import Objects, arrange
from kprobes.engines.process.settling import CrowdedError, moves_call, settle, with_victims
from kprobes.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kprobes.arch.x86_64.patch import Patch as Jump
    from kprobes.engines.process.arming import Arrangement, Located
    from kprobes.engines.process.detours import CodeArea
    from kprobes.engines.process.memory import ProcessMemory, Room
    from kprobes.engines.process.procfs import Mapping
    from kprobes.model.plan import Plan

    Settled = list[tuple[CodeArea, list[Jump]]]  # areas of code, and the jumps whose detours stand in each

# Bytes left free for the program's own next mappings: more each time that one of those took the place chosen for ours.
MARGINS = (0, 64 << 20, 256 << 20, 512 << 20, 1 << 30)


class Siting:
    """Looks at the process *pid* while it runs. *exact*: see `Worker`."""

    def __init__(self, pid: int, plan: Plan, memory: ProcessMemory, *, exact: bool) -> None:
        self._pid = pid
        self._plan = plan
        self._memory = memory
        self._exact = exact

    def objects(self, mappings: Sequence[Mapping]) -> Objects:
        """Return the files that *mappings* are of."""
        return Objects(self._pid, mappings)

    def located(self, objects: Objects, numbers: Iterable[int]) -> list[Located]:
        """Return where the sites *numbers* are, those that are nowhere left out."""
        sites = [(number, self._plan.sites[number]) for number in numbers]
        return [one for number, site in sites if objects.is_mapped(site) for one in objects.locate(number, site)]

    def settle(
        self, wanted: Sequence[int], mappings: Sequence[Mapping], rooms: Sequence[Room], handlers_size: int
    ) -> tuple[Arrangement, Settled]:
        """Decide how each site is armed and where its detour stands; again where it turns out to be too crowded.

        Raises:
            UnprobeableError, TargetError: a site can't be had, or its object has gone.
            UnsupportedError: there is no room for detours, or a shadow stack forbids them.
        """
        crowded: set[int] = set()
        objects = self.objects(mappings)
        while True:
            found = arrange(self._plan, wanted, objects, self._memory, rooms, crowded=crowded, exact=self._exact)
            try:
                jumps, always = with_victims(found.jumps), bool(found.faults)
                settled = settle(jumps, found.bodies(), rooms, handlers_size=handlers_size, always=always)
            except CrowdedError as error:
                if error.addresses <= crowded:
                    raise UnsupportedError("no free memory for detours in reach of the code") from None
                crowded |= error.addresses
            else:
                self._check_shadow_stack([jump for _, jumps in settled for jump in jumps])
                return found, settled

    def _check_shadow_stack(self, jumps: Sequence[Jump]) -> None:
        """Refuse jumps that move a call out of its place where the processor checks return addresses.

        Raises:
            UnsupportedError: such a call would push an address that the shadow stack doesn't have.
        """
        if not procfs.read_status(self._pid, self._memory.pid).shadow_stack:
            return
        if any(program.skips for program in self._plan.natives):
            raise UnsupportedError(
                "the process has a hardware shadow stack, and a handler leaves the probed function",
                hint="return_from_function() and a change of regs.ip would be taken for an attack",
            )
        if any(moves_call(jump) for jump in jumps):
            raise UnsupportedError(
                "the process has a hardware shadow stack, and a probe would have to move a call",
                hint="probe another instruction of that function, or use --engine uprobe",
            )
