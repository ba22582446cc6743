"""Undoing: restore the code, then free our memory once nobody is in it. For detach, and to clean up after the dead."""

from __future__ import annotations

import contextlib
import errno
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.process import inject, procfs
from kprobes.engines.process.layout import JOURNAL_ENTRY, REGISTRY_SIZE
from kprobes.engines.process.memory import ProcessMemory
from kprobes.engines.process.patch import move_threads, places, ways_back, write_patches
from kprobes.engines.process.registry import MAPPED_AS, parse_journal, parse_registry, registries
from kprobes.engines.process.stops import Proof, Stops
from kprobes.errors import FormatError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kprobes.engines.process.patch import Place, Resume
    from kprobes.engines.process.procfs import Mapping as Memory
    from kprobes.engines.process.registry import Identity, Patch, Registry
    from kprobes.engines.process.threads import StoppedThreads

RETRY_S, LONGEST_RETRY_S = 0.002, 0.02
# A thread that is on its way goes on as soon as it gets a processor; one that sleeps may stay for ever.
RUNNING_S, SLEEPING_S = 10.0, 0.2
VFORK_S = 2.0  # a child that was started by vfork executes its program, and its parent goes on
LEAST_TRIES = 20


@dataclass(frozen=True, slots=True)
class Leftover:
    """A shared memory of ours found in a process: where it is mapped, and what its registry says."""

    start: int
    end: int
    inode: int
    registry: Registry


class Patience:
    """How long to wait, standstill after standstill, for threads to leave the places where they are in the way.

    *sleeping_s*: how long for those that don't run.
    """

    def __init__(self, sleeping_s: float = SLEEPING_S) -> None:
        self._sleeping_s = sleeping_s
        self._begun = time.monotonic()
        self._tries = 0
        self._pause_s = RETRY_S

    def is_over(self, threads: StoppedThreads, blocking: Iterable[Place] = ()) -> bool:
        """Tell whether to give up on those at *blocking*."""
        self._tries += 1
        able = {place.tid for place in blocking} - threads.in_group_stop
        runs = any(tid in able and values.orig_ax >= 1 << 63 for tid, values in threads.registers.items())
        passed = time.monotonic() - self._begun
        return passed > RUNNING_S or not (runs or passed < self._sleeping_s or self._tries < LEAST_TRIES)

    def rest(self) -> None:
        """Let the threads run for a while."""
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_RETRY_S)


def restore(
    stops: Stops, patches: Sequence[Patch], resume: Mapping[int, Resume], *, let_go: bool = True
) -> list[Patch]:
    """Put the original bytes back; return the patches that somebody else has changed since.

    *resume*: what an address in a detour stands for; threads there go back to it at once. *let_go*: the threads run
    free from then on, also those that were kept for breakpoints.

    Raises:
        TargetError: a thread stands where it can't be moved away, and doesn't go on.
    """
    patience = Patience(VFORK_S)
    while True:
        with stops.stopped() as threads:
            mappings = stops.mappings()
            if not stops.is_ours(mappings):
                stops.set_free(threads)
                return []
            standing = list(places(threads, stops.memory, mappings))
            sends = ways_back(threads, standing, patches, resume)
            if sends is not None:
                left = write_patches(stops.memory, patches[::-1], undo=True)
                move_threads(threads, stops.memory, sends)
                if let_go:
                    stops.set_free(threads)
                return left
            if patience.is_over(threads):
                why = f"a thread of process {stops.target.pid} stands on a probe and doesn't go on"
                raise TargetError(why, hint="try again")
        patience.rest()


def free(stops: Stops, code: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> bool:
    """Unmap *code* and *others*, (start, size) each, once no thread is in *code*; tell whether that could be done."""
    patience = Patience()
    while True:
        with stops.stopped() as threads:
            mappings = stops.mappings()
            if not stops.is_ours(mappings):
                return True
            inside = _inside(places(threads, stops.memory, mappings), code)
            if not inside and threads.registers:
                with stops.calls(threads) as (calls, _):
                    for start, size in (*code, *others):
                        calls.call("unmapping", inject.SYS_MUNMAP, start, size)
                return True
            if patience.is_over(threads, inside):
                return False
        patience.rest()


def free_if_left(stops: Stops, code: Sequence[tuple[int, int]]) -> bool:
    """Unmap *code*, (start, size) each, if no thread is in it; tell whether it was."""
    with stops.stopped() as threads:
        mappings = stops.mappings()
        if _inside(places(threads, stops.memory, mappings), code) or not stops.is_ours(mappings):
            return False
        with stops.calls(threads) as (calls, _):
            for start, size in code:
                calls.call("unmapping", inject.SYS_MUNMAP, start, size)
        return True


def wait_until_left(stops: Stops, code: Sequence[tuple[int, int]]) -> bool:
    """Wait until each thread, and each signal handler's way back, that is in *code*, (start, size) each, has been out
    of it; tell whether that came to be."""
    patience = Patience()
    left: set[tuple[int, int]] | None = None
    while True:
        with stops.stopped() as threads:
            inside = _inside(places(threads, stops.memory, stops.mappings()), code)
            still = {(place.tid, place.stored_at) for place in inside}
            left = still if left is None else left & still
            if not left:
                return True
            if patience.is_over(threads, inside):
                return False
        patience.rest()


def _inside(found: Iterable[Place], code: Sequence[tuple[int, int]]) -> list[Place]:
    return [place for place in found if any(start <= place.ip < start + size for start, size in code)]


def leftovers(memory: ProcessMemory, mappings: Sequence[Memory]) -> list[Leftover]:
    """Return the shared memories of ours in a process; those that the target has overwritten are left out."""
    found = []
    for mapping in registries(mappings):
        with contextlib.suppress(FormatError, TargetError):
            registry = parse_registry(memory.read(mapping.start, REGISTRY_SIZE))
            found.append(Leftover(mapping.start, _end_of(mapping, mappings), mapping.inode, registry))
    return found


def _end_of(first: Memory, mappings: Sequence[Memory]) -> int:
    """Return where the file ends that *first* begins to show."""
    end = first.end
    for mapping in mappings:
        if mapping.start == end and mapping.path == MAPPED_AS and mapping.inode == first.inode:
            end = mapping.end
    return end


def is_alive(identity: Identity) -> bool:
    """Tell whether that very process still runs."""
    try:
        return procfs.read_start_time(identity.pid) == identity.start_time and (
            procfs.read_status(identity.pid).state not in "ZX"
        )
    except OSError:
        return False


def check_free(target: Identity, found: Sequence[Leftover], *, patience_s: float = 0) -> None:
    """Make sure that nobody alive probes *target*, waiting up to *patience_s* for an owner that is about to die.

    Raises:
        TargetError: somebody does.
    """
    end = time.monotonic() + patience_s
    for leftover in found:
        owner = leftover.registry.owner
        while leftover.registry.target == target and is_alive(owner):
            if time.monotonic() < end:
                time.sleep(RETRY_S)
                continue
            raise TargetError(
                f"process {target.pid} is probed already, by process {owner.pid}",
                hint="end that session first, or put all probes into one",
                number=errno.EBUSY,
            )


def clean(target: Identity) -> int:
    """Undo what a dead controller left in *target*; return the number of places that were restored.

    Raises:
        TargetError: a living controller probes it, or it can't be restored now.
    """
    restored = 0
    with ProcessMemory(procfs.live_thread(target.pid)) as memory:
        stops = Stops(target, memory)
        found = leftovers(memory, stops.mappings())
        check_free(target, found)
        for leftover in found:
            restored += _clean_one(stops, leftover)
    return restored


def _clean_one(stops: Stops, leftover: Leftover) -> int:
    registry = leftover.registry
    size = min(registry.entries * JOURNAL_ENTRY, max(leftover.end - leftover.start - registry.journal_at, 0))
    stops.proof = Proof(leftover.start, leftover.inode)
    mappings = stops.mappings()
    code = [one for one in mappings if one.executable]
    found, more = parse_journal(stops.memory.read_some(leftover.start + registry.journal_at, size))
    patches = [
        patch
        for patch in found
        if not patch.counts and any(one.start <= patch.address and patch.end <= one.end for one in code)
    ]
    patches += _counters(stops, found, patches, mappings)
    left = restore(stops, patches, {})
    # What the registry calls ours is taken for it only where it looks it: anonymous memory.
    anonymous = [one for one in mappings if not one.inode and not one.path]
    ours = [
        (start, length)
        for start, length in (*registry.areas, *more)
        if any(one.start <= start and start + length <= one.end for one in anonymous)
    ]
    executable = [area for area in ours if any(one.start <= area[0] < one.end for one in code)]
    others = [area for area in ours if area not in executable]
    others.append((leftover.start, leftover.end - leftover.start))
    if not free(stops, executable, others):
        raise TargetError(f"a thread of process {stops.target.pid} is still inside a detour", hint="try again")
    return sum(not patch.counts for patch in patches) - sum(not patch.counts for patch in left)


def _counters(
    stops: Stops, found: Sequence[Patch], patches: Sequence[Patch], mappings: Sequence[Memory]
) -> list[Patch]:
    """Return those counters of *found* that are still counted up: the code of theirs among *patches* is in place. They
    lie in private, writable memory of a file."""
    data = [one for one in mappings if one.permissions[1] == "w" and not one.shared and one.inode]
    armed = {one.head for one in patches if stops.memory.read_some(one.address, len(one.written)) == one.written}
    return [
        patch
        for patch in found
        if patch.counts and patch.head in armed
        if any(one.start <= patch.address and patch.end <= one.end for one in data)
    ]
