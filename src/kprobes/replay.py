"""Recorded hits, run again: a changed handler in the interpreter, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.verify import verify
from kprobes.compiler.ir.world import Frame
from kprobes.errors import FormatError, UsageError
from kprobes.events.decode import Decoder
from kprobes.events.holdings import Holdings
from kprobes.frozen import dataclass
from kprobes.model.plan import Plan
from kprobes.model.probe import FetchHandler, HandlerSource
from kprobes.planner.fetching import recorded_definitions
from kprobes.planner.places import NoTypes
from kprobes.planner.prototypes import FileTypes
from kprobes.symbols.btf import Btf
from kprobes.symbols.btf_types import KernelTypes
from kprobes.symbols.tracepoint import parse_format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.ir.nodes import Handler
    from kprobes.compiler.ir.storage import Elements, Storage, Waiting
    from kprobes.events.record import Event
    from kprobes.events.recording import Half, Hit, Recording
    from kprobes.model.ctype import Function, Types
    from kprobes.model.layout import EventLayout, MapLayout
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.plan import Assertion, Site
    from kprobes.model.probe import Probe
    from kprobes.symbols.tracepoint import RecordField

_NUMBER = 8  # bytes of the largest number that is read at once
_USER_KINDS = frozenset({"uprobe", "uretprobe"})


class RecordedTypes:
    """The types of the target that was recorded: the kernel's are in the recording, a program's are where it is."""

    def __init__(self, recording: Recording, instead: Types | None = None) -> None:
        self._recording = recording
        self._instead = instead
        self._kernel: Types | None = None
        self._files: dict[str, FileTypes] = {}

    def of(self, site: Site) -> Types:
        """Return the types of the code at *site*."""
        if self._instead is not None:
            return self._instead
        if site.path:
            return self._files.setdefault(site.path, FileTypes(site.path, ""))
        if self._kernel is None:
            kept = self._recording.types
            self._kernel = KernelTypes(Btf(kept), (), lambda _: None) if kept else NoTypes()
        return self._kernel

    @property
    def machine(self) -> str:
        """Return the architecture of what was recorded."""
        return str(self._recording.meta.get("machine") or "x86_64")

    def prototype(self, site: Site) -> Function | None:
        """Return the prototype of the function that begins at *site*."""
        return self.of(site).function(site.symbol) if site.symbol and not site.offset else None

    def fields(self, site: Site) -> tuple[RecordField, ...]:
        """Return the fields of the record of a tracepoint.

        Raises:
            FormatError: the recording doesn't tell them.
        """
        formats = self._recording.meta.get("formats")
        text = formats.get(site.name) if isinstance(formats, dict) else None
        if not isinstance(text, str):
            raise FormatError(f"the recording doesn't tell what {site.name} records")
        return parse_format(text, category=site.name.partition(":")[0], types=self.of(site)).fields


@dataclass(frozen=True, slots=True)
class SiteCounts:
    """Counts of one site, as `session.ProbeStats`; *unmatched* calls are those of which the recording has one half."""

    name: str
    kind: str
    ways: tuple[str, ...]
    hits: int
    missed: int
    lost: int
    faults: int
    unmatched: int = 0


@dataclass(frozen=True, slots=True)
class AssertCounts:
    """How often an `assert` has *failed*, as `session.AssertStats`."""

    assertion: Assertion
    failed: int


class Replay:
    """What came of a replay: `events`, maps (`replay[opens]`), `stats` by site, `notes` on what was not recorded."""

    def __init__(self, probes: Sequence[Probe], recording: Recording, types: Types | None = None) -> None:
        """Run the handlers of *probes* on each hit of *recording*; *types* stand for those that it has.

        Raises:
            UsageError: none of the probes was recorded. CompileError: a handler is outside the language.
            FormatError: the recording contradicts itself.
        """
        self._recording = recording
        self._types = RecordedTypes(recording, types)
        self._handlers = _matched(probes, recording)
        self._specs: dict[str, MapSpec] = {}
        self._layouts: dict[str, MapLayout] = {}
        self._machines: dict[int, Interpreter | None] = {}
        self._shared: dict[str, Storage | Elements | Waiting] = {}
        self._layout_of: list[EventLayout] = []
        self._compiled: dict[object, Handler] = {}
        self.unhandled = self.halved = 0
        self.unknown: set[int] = set()
        self.unrecorded: set[str] = set()
        self.world = _World(self)
        for hit, number in recording.steps:
            self._run(hit, number)
        self.plan = Plan((), recording.plan.sites, tuple(self._layouts.values()), (), (), tuple(self._layout_of))
        names = [site.name for site in recording.plan.sites]
        self.events: list[Event] = Decoder(self._layout_of, names).decode(self.world.records)

    # As a session.

    def __getitem__(self, spec: MapSpec) -> object:
        """Return what a map holds."""
        return self.read(spec.name)

    def read(self, name: str) -> object:
        """Return what the map called *name* holds.

        Raises:
            UsageError: no handler uses such a map.
        """
        return Holdings(list(self._layouts.values()), self).read(name)

    def take(self, spec: MapSpec) -> object:
        """Return what a map holds, also a queue."""
        return Holdings(list(self._layouts.values()), self).take(spec.name)

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map."""
        return self._shared[name].read()

    take_map = read_map

    def known(self, value: object) -> object:
        """Return *value*: addresses have no names here."""
        return value

    def wall_ns(self, time_ns: int) -> int:
        """Return the time of day of *time_ns*, as it was when the recording began."""
        return time_ns + int(str(self._recording.meta.get("clock_offset") or 0))

    def stack(self, stack_id: int) -> list[str]:  # noqa: ARG002 - as a session's
        """Return no frames: a recording has the numbers of stacks only."""
        return []

    @property
    def stats(self) -> list[SiteCounts]:
        """The counts of each site whose hits were replayed."""
        found = []
        for number, machine in sorted(self._machines.items()):
            if machine is not None:
                site, one = self._recording.plan.sites[number], machine.counters
                kind = self._recording.plan.probes[site.probe].kind
                counts = (one.hits, one.missed, one.lost, one.faults)
                found.append(SiteCounts(site.name, kind, ("replay",), *counts))
        return found

    @property
    def asserts(self) -> list[AssertCounts]:
        """How often each `assert` of the handlers has failed."""
        found = dict.fromkeys(one for handler in self._compiled.values() for one in handler.asserts)
        return [AssertCounts(one, self._count_of(one.map)) for one in found]

    def _count_of(self, name: str) -> int:
        return sum(int.from_bytes(value, "little") for _, value in self.read_map(name)) if name in self._shared else 0

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the results."""
        found = []
        if self.unknown:
            found.append(
                f"hits that read memory which was not recorded (it reads as zeros, and counts as a fault): "
                f"{len(self.unknown)}"
            )
        if self.unrecorded:
            found.append(f"not recorded, and 0 here: {', '.join(sorted(self.unrecorded))}")
        if self.halved:
            found.append(f"calls of which one half only was recorded, left out: {self.halved}")
        if self.unhandled:
            found.append(f"hits at places that the script has no handler for: {self.unhandled}")
        if self._recording.full:
            found.append("the recording met its limit: later hits are not in it")
        if not self._recording.ended or self._recording.lost:
            found.append("the recording is not whole: its end is missing or records were lost")
        return found

    # Running.

    def _run(self, hit: Hit, number: int) -> None:
        machine, half = self._machine(hit.site), hit.halves[number]
        if machine is None:
            self.unhandled += not number
            return
        handler, faults = machine.handler, machine.counters.faults
        if handler.entry is not None and handler.exit is not None:
            alone = half.part if len(hit.halves) == 1 else ""
            if alone == "exit":
                self.halved += 1
                return
        self.world.enter(hit, number)
        (machine.enter if half.part == "entry" else machine.leave)(self._frame(hit, half))
        self.halved += number == len(hit.halves) - 1 and half.part == "entry" and hit.id in machine.saved
        if self.world.missed and machine.counters.faults > faults:
            self.unknown.add(hit.id)

    def _frame(self, hit: Hit, half: Half) -> Frame:
        return Frame(
            registers=_Registers(self, half),
            arguments=_Arguments(self, hit.halves[0]),
            result=int(half.values.get("result", 0)),
            record=_record_of(half),
            function=int(half.values.get("function", self._recording.plan.sites[hit.site].address)),
            call=hit.id,
        )

    def _machine(self, number: int) -> Interpreter | None:
        if number not in self._machines:
            self._machines[number] = self._made(number)
        return self._machines[number]

    def _made(self, number: int) -> Interpreter | None:
        site = self._recording.plan.sites[number]
        probe = self._handlers.get(self._recording.plan.probes[site.probe].asked)
        if probe is None:
            return None
        machine = Interpreter(self._compile(probe, site), self.world, site=number, calls=1 << 30)
        for name, storage in machine.maps.items():
            machine.maps[name] = self._shared.setdefault(name, storage)
            self._layouts.setdefault(name, storage.layout)
        return machine

    def _compile(self, probe: Probe, site: Site) -> Handler:
        prototype = self._types.prototype(site)
        key = (id(probe), prototype.key if prototype else None, site.path, bool(site.offset))
        if key not in self._compiled:
            handler = self._handler(probe, site, prototype)
            verify(handler)
            self._layout_of += handler.events
            self._compiled[key] = handler
        return self._compiled[key]

    def _handler(self, probe: Probe, site: Site, prototype: Function | None) -> Handler:
        def surroundings() -> Surroundings:
            return Surroundings(
                kind=probe.kind,
                arch=self._types.machine,
                types=self._types.of(site),
                prototype=prototype,
                at_entry=not site.offset,
                record=self._types.fields(site) if probe.kind == "tracepoint" else (),
                first_event_id=len(self._layout_of),
                unsafe=probe.unsafe,
                steps=probe.kind in _USER_KINDS and not probe.on_fault,
                on_fault=probe.on_fault,
                settings=probe.settings,
            )

        if isinstance(probe.handler, HandlerSource):
            return compile_handler(probe.handler, surroundings(), self._specs)
        if not isinstance(probe.handler, FetchHandler):
            raise UsageError("a probe without a handler can't be replayed", hint="decorate a function")
        meta = self._recording.meta
        found = recorded_definitions(str(meta.get("release") or ""), self._types.machine, self._types.of(site))
        tell = probe.kind == "kretprobe" and bool(meta.get("returns_tell"))
        return found.compiled(found.placed(probe), surroundings, self._specs, len(self._layout_of), returns_tell=tell)


def _matched(probes: Sequence[Probe], recording: Recording) -> dict[int, Probe]:
    """Return the probe of the script for each that was recorded, by its number."""
    asked = recording.meta.get("probes")
    found: dict[int, Probe] = {}
    known = []
    for number, one in enumerate(asked if isinstance(asked, list) else ()):
        try:
            kind, places, text = str(one[0]), {str(place) for place in one[1]}, "".join(map(str, one[2:]))
        except (TypeError, IndexError, KeyError) as error:
            raise FormatError("the recording is damaged: it doesn't say what was probed") from error
        known.append(f"{kind} {' '.join(sorted(places))}")
        fitting = [probe for probe in probes if probe.kind == kind and places & set(probe.places)]
        # Of several definitions of one place the one that is the same, or is called so.
        same = max(fitting, key=lambda probe: _likeness(probe, text), default=None)
        if same is not None:
            found[number] = same
    if not found:
        raise UsageError("none of the script's probes was recorded", hint=f"the recording has {', '.join(known)}")
    return found


def _likeness(probe: Probe, text: str) -> tuple[bool, bool, bool]:
    """Return how like *probe* is to one that was recorded with the definition *text*, empty for a handler."""
    own = probe.handler.text if isinstance(probe.handler, FetchHandler) else ""
    return bool(own) == bool(text), own == text, own.partition(" ")[0] == text.partition(" ")[0]


class _Arguments(tuple[int, ...]):
    """The arguments of a hit; what was not recorded is noted."""

    def __new__(cls, replay: Replay, half: Half) -> _Arguments:
        found: list[int] = []
        while f"a{len(found)}" in half.values:
            found.append(int(half.values[f"a{len(found)}"]))
        made = super().__new__(cls, found)
        made.replay = replay
        return made

    replay: Replay

    def __getitem__(self, index: object) -> int:  # type: ignore[override]
        if isinstance(index, int) and index < len(self):
            return super().__getitem__(index)
        self.replay.unrecorded.add(f"argument {int(index) + 1}" if isinstance(index, int) else "arguments")
        return 0


class _Registers(dict[str, int]):
    """The registers of a hit; what was not recorded is noted."""

    def __init__(self, replay: Replay, half: Half) -> None:
        super().__init__({name[2:]: int(value) for name, value in half.values.items() if name.startswith("r.")})
        self._replay = replay

    def __missing__(self, name: str) -> int:
        self._replay.unrecorded.add(f"regs.{name}")
        return 0


def _record_of(half: Half) -> bytes:
    """Return the record of a tracepoint as far as it is known."""
    content = bytearray()

    def put(offset: int, data: bytes) -> None:
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data

    for name, value in half.values.items():
        offset, dot, size = name[1:].partition(".")
        if name[0] == "f" and dot and offset.isdigit() and size in ("1", "2", "4", "8") and int(offset) < 1 << 16:
            put(int(offset), (int(value) & (1 << 8 * int(size)) - 1).to_bytes(int(size), "little"))
    for (offset_of, length), text in half.strings.items():
        if offset_of < 1 << 16 and length:
            put(offset_of, text[:length])
    for (offset_of, length), text in half.strings.items():
        if offset_of < 1 << 16 and not length:
            at = max(len(content), offset_of + 4)
            put(offset_of, (at & 0xFFFF).to_bytes(4, "little"))
            put(at, text)
    return bytes(content)


class _World:
    """The world of the hit that is replayed, as the interpreter asks for it."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._known: dict[int, int] = {}
        self._holes: list[tuple[int, int]] = []
        self._half: Half | None = None
        self.records: list[bytes] = []
        self.missed = False

    def enter(self, hit: Hit, number: int) -> None:
        """Go to half *number* of *hit*, which may have read anew what one before it has read."""
        self._half = hit.halves[number]
        self._known, self._holes, self.missed = {}, [], False
        padding: list[tuple[int, int]] = []
        for half in hit.halves[: number + 1]:
            for address, content in half.memory.items():
                size = len(content) if len(content) <= _NUMBER else min(len(content.rstrip(b"\0")) + 1, len(content))
                self._known.update(zip(range(address, address + size), content, strict=False))
                padding.append((address + size, address + len(content)))
            self._holes += half.holes
        # Of a string only what ends with the NUL was there: of its room behind that other reads know better.
        for start, end in padding:
            for at in range(start, end):
                self._known.setdefault(at, 0)

    def read_memory(self, space: str, address: int, size: int) -> bytes | None:  # noqa: ARG002
        """Return what was recorded there."""
        found = [self._known.get(at) for at in range(address, address + size)]
        if None not in found:
            return bytes(byte for byte in found if byte is not None)
        if not any(start < address + size and address < start + length for start, length in self._holes):
            self.missed = True
        return None

    def number(self, name: str) -> int:
        """Return a builtin as it was."""
        assert self._half is not None
        for values, key in ((self._half.words, name), (self._half.values, f"w.{name}")):
            if key in values:
                return int(values[key])
        self._replay.unrecorded.add(f"{name}()")
        return 0

    def text(self, name: str) -> bytes:
        """Return a text builtin as it was."""
        assert self._half is not None
        return bytes(self._half.values.get(f"w.{name}", b"")).split(b"\0", 1)[0]

    def send(self, record: bytes) -> bool:
        """Keep an event."""
        self.records.append(record)
        return True

    def write(self, what: str, name: str, value: int) -> None:
        """Change nothing: the program ran on long ago."""
