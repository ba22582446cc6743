"""Recordings: the raw contexts of hits in a file.

    magic "KPRECORD", u32 version
    blocks: u32 kind, u32 size, u32 size as stored, u32 CRC-32 of what is stored; then what is stored, by zlib

Kinds: `PLAN` (sites, probes and event layouts, as `model.wire` has them), `META` (JSON: the places that were asked for,
formats of tracepoints), `TYPES` (the kernel's BTF, if there is one), `HITS` (records as handlers sent them, each as
long as its layout says), `END` (JSON: how many, and whether the limit was met). All numbers are little-endian. What
the records mean stands in `compiler.ir.recording`.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from kprobes.errors import FormatError, SyscallError
from kprobes.events.record import Codec
from kprobes.model.plan import Plan
from kprobes.model.wire import plan_from_bytes, plan_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from kprobes.events.record import Event

MAGIC = b"KPRECORD"
VERSION = 1
_HEAD = struct.Struct("<4I")
PLAN, META, TYPES, HITS, END = range(1, 6)
LARGEST = {PLAN: 1 << 26, META: 1 << 24, TYPES: 1 << 27, HITS: 1 << 22, END: 1 << 12}
DEFAULT_LIMIT = 64 << 20
_BATCH = 1 << 20
PREFIX = "."
_TEXTS = frozenset({"text", "w.comm"})


class Recorder:
    """Writes a recording to *path* (mode 0600, at most *limit* bytes of hits as stored); a context manager.

    `hits` is how many contexts were written, `size` their bytes as stored, `full` that the limit was met: later hits
    are not recorded then.
    """

    def __init__(self, path: str, limit: int = DEFAULT_LIMIT) -> None:
        self.path = path
        self.limit = limit
        self.hits = 0
        self.size = 0
        self.full = False
        self._codecs: dict[int, Codec] = {}
        self._pending = bytearray()
        self._file = self._open()

    def _open(self) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o600)
            os.fchmod(descriptor, 0o600)
        except OSError as error:
            raise SyscallError(
                f"can't write {self.path!r}", error.errno or 0, hint="is the directory there?"
            ) from error
        return os.fdopen(descriptor, "wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, plan: Plan, meta: dict[str, object], types: bytes = b"") -> None:
        """Write what the hits of *plan* need to be understood; *types* is the kernel's BTF."""
        kept = Plan(plan.probes, plan.sites, (), (), (), tuple(one for one in plan.events if is_recorded(one.name)))
        self._codecs = {layout.id: Codec(layout, ()) for layout in kept.events}
        self._file.write(MAGIC + VERSION.to_bytes(4, "little"))
        self._block(PLAN, plan_to_bytes(kept))
        self._block(META, json.dumps(meta).encode())
        if types:
            self._block(TYPES, types)

    def take(self, events: Sequence[Event]) -> list[Event]:
        """Write those of *events* that belong to a recording; return the others."""
        others = []
        for event in events:
            if not is_recorded(event.layout.name):
                others.append(event)
            elif not self.full:
                codec = self._codecs[event.layout.id]
                self._pending += codec.rows(codec.layout.size, 0).pack(*event._values)
                self.hits += event.layout.name in (".entry", ".exit")
                if len(self._pending) >= _BATCH:
                    self._flush()
        return others

    def close(self) -> None:
        """Write the end; a recording that never began leaves no file."""
        if self._file.closed:
            return
        if not self._file.tell():
            self._file.close()
            os.unlink(self.path)  # noqa: PTH108
            return
        self._flush()
        self._block(END, json.dumps({"hits": self.hits, "full": self.full}).encode())
        self._file.close()

    def _flush(self) -> None:
        if self._pending and not self.full:
            self.size += self._block(HITS, bytes(self._pending))
            self.full = self.size >= self.limit
        self._pending.clear()

    def _block(self, kind: int, content: bytes) -> int:
        stored = zlib.compress(content, 1)
        self._file.write(_HEAD.pack(kind, len(content), len(stored), zlib.crc32(stored)))
        self._file.write(stored)
        return len(stored)


def is_recorded(name: str) -> bool:
    """Tell whether an event of this name belongs to a recording."""
    return name.startswith(PREFIX)


@dataclass
class Half:
    """What one part of a handler saw: *values* of the context, *words* asked for later, *memory* read, *holes* that
    could not be, and strings of the record by (offset, length)."""

    part: str
    values: dict[str, Any]
    memory: dict[int, bytes] = field(default_factory=dict)
    holes: list[tuple[int, int]] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)
    strings: dict[tuple[int, int], bytes] = field(default_factory=dict)


@dataclass
class Hit:
    """One hit: its site, and what each part saw, in order."""

    id: int
    site: int
    halves: list[Half] = field(default_factory=list)


@dataclass
class Recording:
    """A recording in memory. *hits* are in the order in which they began, *steps* their halves in the order in which
    they ran; *lost* records belong to no known hit."""

    plan: Plan
    meta: dict[str, Any]
    types: bytes
    hits: list[Hit]
    steps: list[tuple[Hit, int]]
    lost: int = 0
    full: bool = False
    ended: bool = False


def load_recording(path: str) -> Recording:
    """Read a recording.

    Raises:
        SyscallError: the file can't be read.
        FormatError: it is no recording, or damaged.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return _read(file, path)
    except OSError as error:
        raise SyscallError(f"can't read {path!r}", error.errno or 0, hint="is it there?") from error


def _read(file: BinaryIO, path: str) -> Recording:
    if file.read(len(MAGIC)) != MAGIC:
        raise FormatError(f"{path} is no recording", hint="make one with `kprobes run --record FILE script.py`")
    version = int.from_bytes(file.read(4), "little")
    if version != VERSION:
        raise FormatError(f"{path} is a recording of version {version}, this is {VERSION}", hint="record it again")
    found: dict[int, bytes] = {}
    grouped: _Grouping | None = None
    for kind, content in _blocks(file, path):
        if kind == HITS:
            grouped = grouped or _Grouping(_plan(found, path), path)
            grouped.add(content)
        else:
            found[kind] = content
    plan = grouped.plan if grouped else _plan(found, path)
    end = _json(found.get(END, b"{}"), path)
    return Recording(
        plan,
        _json(found.get(META, b"{}"), path),
        found.get(TYPES, b""),
        list(grouped.hits.values()) if grouped else [],
        grouped.steps if grouped else [],
        grouped.lost if grouped else 0,
        full=end.get("full") is True,
        ended=END in found,
    )


def _blocks(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks; one that was cut short by the end of the file ends it."""
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        kind, size, stored_size, crc = _HEAD.unpack(head)
        if size > LARGEST.get(kind, 0) or stored_size > size + (size >> 8) + 64:
            raise FormatError(f"{path} is damaged: a block of kind {kind} and {size} bytes")
        stored = file.read(stored_size)
        if len(stored) < stored_size:
            return
        if zlib.crc32(stored) != crc:
            raise FormatError(f"{path} is damaged: a checksum is wrong")
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(stored, size + 1)
        except zlib.error as error:
            raise FormatError(f"{path} is damaged: {error}") from error
        if len(content) != size:
            raise FormatError(f"{path} is damaged: a block has another size than it says")
        yield kind, content


def _plan(found: dict[int, bytes], path: str) -> Plan:
    if PLAN not in found:
        raise FormatError(f"{path} is damaged: its head is missing")
    plan = plan_from_bytes(found[PLAN])
    if any(not 0 <= site.probe < len(plan.probes) for site in plan.sites):
        raise FormatError(f"{path} is damaged: a site of no probe")
    return plan


def _json(content: bytes, path: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path} is damaged: its head is no object")
    return found


class _Grouping:
    """Puts records together to hits."""

    def __init__(self, plan: Plan, path: str) -> None:
        self.plan = plan
        self.path = path
        self.hits: dict[int, Hit] = {}
        self.steps: list[tuple[Hit, int]] = []
        self.lost = 0
        self._codecs = {layout.id: Codec(layout, ()) for layout in plan.events}

    def add(self, content: bytes) -> None:
        """Add a block of records."""
        position = 0
        while position < len(content):
            codec = self._codecs.get(int.from_bytes(content[position : position + 4], "little"))
            if codec is None or codec.layout.size <= 0 or position + codec.layout.size > len(content):
                raise FormatError(f"{self.path} is damaged: a record of an unknown kind")
            values = codec.rows(codec.layout.size, 0).unpack_from(content, position)
            position += codec.layout.size
            self._one(codec, values)

    def _one(self, codec: Codec, values: tuple[Any, ...]) -> None:
        named = dict(zip((one.name for one in codec.layout.fields), values[2:], strict=True))
        name, number = codec.layout.name, named.get("hit")
        wrong = [key for key, value in named.items() if isinstance(value, int) == (key in _TEXTS)]
        if wrong or not isinstance(number, int) or not 0 <= values[1] < len(self.plan.sites):
            raise FormatError(f"{self.path} is damaged: a record without a hit")
        if name in (".entry", ".exit"):
            hit = self.hits.setdefault(number, Hit(number, values[1]))
            self.steps.append((hit, len(hit.halves)))
            hit.halves.append(Half(name[1:], named))
            return
        hit_of = self.hits.get(number)
        if hit_of is None:
            self.lost += 1
            return
        self._seen(hit_of.halves[-1], name, named)

    def _seen(self, half: Half, name: str, named: dict[str, Any]) -> None:
        try:
            if name == ".read":
                content = (named["value"] & (1 << 8 * named["size"]) - 1).to_bytes(named["size"], "little")
                _remember(half, named["address"], content, failed=bool(named["failed"]))
            elif name == ".text":
                _remember(half, named["address"], bytes(named["text"]), failed=bool(named["failed"]))
            elif name == ".field":
                half.strings[named["offset"], named["length"]] = bytes(named["text"])
            elif name.startswith(".word."):
                half.words[name.removeprefix(".word.")] = int(named["value"])
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise FormatError(f"{self.path} is damaged: a record without {error}") from error


def _remember(half: Half, address: int, content: bytes, *, failed: bool) -> None:
    if failed and not content.strip(b"\0"):
        half.holes.append((address, len(content)))
    else:
        half.memory[address] = content
