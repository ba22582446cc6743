"""The list of what is armed in a process, kept in the memory shared with it, so that everybody who may look can.

It stands at the end of the shared memory: a checksum, a length, and one line of text a site. The hand writes it after
each change; who reads it treats it as hostile, as the target may write there too.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.arming import Armed
from kprobes.engines.process.layout import JOURNAL_ENTRY
from kprobes.engines.process.memory import ProcessMemory
from kprobes.engines.process.registry import parse_journal, registries
from kprobes.engines.process.release import is_alive, leftovers
from kprobes.engines.process.target import check_access
from kprobes.errors import FormatError, KprobesError, TargetError
from kprobes.frozen import dataclass
from kprobes.model.listed import Listed, State
from kprobes.model.probe import RETURN_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, Set

    from kprobes.engines.process.registry import Identity
    from kprobes.engines.process.release import Leftover
    from kprobes.model.plan import Plan

HEADER = struct.Struct("<II8x")  # CRC-32 and length of the text
MAX_LISTING = 1 << 28
FIELDS = 7
TRIES = 50
RETRY_S = 0.01
_CUT = b"...\n"


@dataclass(frozen=True, slots=True)
class Probed:
    """The probes in the process *pid*: who put them there, whether he still *lives*, and what is armed.

    *is_here*: it is the target itself, or a child with a copy of its code; not one that merely shares the memory.
    *is_cut*: there are more sites than the list had room for.
    """

    pid: int
    owner: Identity
    lives: bool
    sites: tuple[Listed, ...]
    is_here: bool = True
    is_cut: bool = False


def rows_of(plan: Plan, armed: Sequence[Armed], off: Set[int], waiting: Set[int]) -> list[Listed]:
    """Return the list of the sites of *plan*; those whose numbers are in *off* have no jump now, those in *waiting* no
    object."""
    known = {one.number for one in armed}
    absent = [Armed(number, 0, "", "its object is not mapped yet") for number in sorted(waiting - known)]
    return [_row(plan, one, off, waiting, known) for one in (*armed, *absent)]


def _row(plan: Plan, one: Armed, off: Set[int], waiting: Set[int], known: Set[int]) -> Listed:
    site = plan.sites[one.number]
    name = f"{site.symbol}+{site.offset:#x}" if site.symbol else site.name
    state = State.ARMED
    if one.number in waiting:
        state = State.GONE if one.number in known else State.PENDING
    elif not one.way:
        state = State.REFUSED
    elif one.number in off:
        state = State.DISABLED
    kind = "r" if plan.probes[site.probe].kind in RETURN_KINDS else "k"
    return Listed(one.address, kind, name, site.path.rpartition("/")[2], one.way, one.why, state)


def format_listing(rows: Iterable[Listed], room: int) -> bytes:
    """Return the listing of *rows* in at most *room* bytes; what doesn't fit is left out, and that is told by its last
    line."""
    import zlib

    lines = bytearray()
    left = room - HEADER.size - len(_CUT)
    for row in rows:
        text = f"{row.address:x}\t{row.kind}\t{row.state}\t{row.way}\t{row.name}\t{row.object}\t{row.why}\n"
        if text.count("\t") != FIELDS - 1 or text.count("\n") != 1:  # a file may be called anything
            fields = (f"{row.address:x}", row.kind, row.state, row.way, row.name, row.object, row.why)
            text = "\t".join(" ".join(field.split()) for field in fields) + "\n"
        line = text.encode("utf-8", "surrogateescape")
        if len(lines) + len(line) > left:
            lines += _CUT
            break
        lines += line
    return HEADER.pack(zlib.crc32(lines), len(lines)) + lines


def parse_listing(content: bytes) -> tuple[Listed, ...]:
    """Return the rows in a listing.

    Raises:
        FormatError: it isn't one, or it is being written right now.
    """
    import zlib

    if len(content) < HEADER.size:
        raise FormatError("there is no list of probes")
    checksum, length = HEADER.unpack_from(content)
    text = content[HEADER.size : HEADER.size + length]
    if not length or len(text) != length or zlib.crc32(text) != checksum:
        raise FormatError("the list of probes is not complete")
    return tuple(_parse_line(line) for line in text.split(b"\n") if line.count(b"\t") == FIELDS - 1)


def _parse_line(line: bytes) -> Listed:
    address, kind, state, way, name, where, why = line.decode("utf-8", "surrogateescape").split("\t")
    try:
        place = int(address, 16)
    except ValueError:
        raise FormatError("the list of probes was overwritten") from None
    return Listed(place, kind, name, where, way, why, state)


def list_process(pid: int, *, tries: int = TRIES) -> list[Probed]:
    """Return what is armed in the process *pid*; nothing of it is stopped or changed.

    A list that is just being written is looked at again, up to *tries* times.

    Raises:
        TargetError: there is no such process, or its list was overwritten. PrivilegeError: it may not be looked at.
    """
    try:
        status = procfs.read_status(pid)
        lead = procfs.live_thread(pid)
        mappings = procfs.read_maps(lead)
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"there is no process {pid}", hint="it may have ended: look again with `ps`") from None
    except PermissionError:
        mappings = []
    check_access(lead, status)
    with ProcessMemory(lead) as memory:
        return [_probed(pid, memory, one, tries) for one in leftovers(memory, mappings)]


def list_processes(pids: Iterable[int] | None = None) -> Iterator[Probed]:
    """Yield what is armed in each of *pids*, or in every process, as far as we may look at them."""
    for pid in procfs.process_ids() if pids is None else pids:
        try:
            if registries(procfs.read_maps(pid)):
                yield from (one for one in list_process(pid, tries=1) if one.is_here)
        except (OSError, KprobesError):  # it ended, or isn't ours to look at
            continue


def _probed(pid: int, memory: ProcessMemory, found: Leftover, tries: int) -> Probed:
    registry = found.registry
    lives = is_alive(registry.owner)
    for attempt in range(tries):
        end = min(found.end, found.start + registry.listing_at + min(registry.listing_size, MAX_LISTING))
        start = found.start + registry.listing_at
        try:
            content = _read(memory, start, end)
            rows = parse_listing(content)
        except FormatError as error:
            if attempt == tries - 1 or not lives:
                raise TargetError(f"process {pid}: {error}") from None
            time.sleep(RETRY_S)
        else:
            here = registry.target.pid == pid or _carries(memory, found)
            return Probed(pid, registry.owner, lives, rows, here, content.endswith(_CUT))
    raise TargetError(f"process {pid}: there is no list of probes")


def _carries(memory: ProcessMemory, found: Leftover) -> bool:
    """Tell whether the first patch of the journal is in place."""
    content = memory.read_some(found.start + found.registry.journal_at, JOURNAL_ENTRY)
    patches, _ = parse_journal(content)
    return any(memory.read_some(one.address, len(one.written)) == one.written for one in patches)


def _read(memory: ProcessMemory, start: int, end: int) -> bytes:
    if end - start < HEADER.size:
        return b""
    _, length = HEADER.unpack(memory.read(start, HEADER.size))
    return memory.read(start, min(end - start, HEADER.size + length))
