"""`--format ftrace`: the lines of the kernel's own `trace` file, whatever engine made the events."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kprobes.events.value import SymbolAddress
from kprobes.model.fetched import HEAD as FETCHED_HEAD
from kprobes.render.ftrace import Argument, Context, heading, line, style_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO, TextIO

    from kprobes.events.record import Event
    from kprobes.model.layout import EventLayout, Field
    from kprobes.model.plan import Site
    from kprobes.session import Session

    Make = Callable[[Event], Argument]

HEAD = frozenset({*FETCHED_HEAD, "_duration", "_stack"})
KEPT_IN_MEMORY = 16 << 20
_PIECE = 1 << 16
_MOST_NAME = 63
_ELEMENT = re.compile(r"(?P<name>.+)\[\d+\]\Z")
# Kinds that the formatter knows; of all others it is given the text.
_PLAIN = frozenset({"int", "uint", "hex", "char", "str"})
_KNOWN = _PLAIN | {"symbol", "symstr"}
# A return that another return probe watches too leads there; the kernel says so.
_TRAMPOLINES = frozenset({"kretprobe_trampoline", "__kretprobe_trampoline", "arch_rethook_trampoline"})
_TRAMPOLINE = "[unknown/kretprobe'd]"
# Of the hit of a uprobe a kernel knows no moment: its record says so by the same bits each time, by whether it has a
# character for migration.
_USER_MOMENT = {True: (0xFF, 0xFF), False: (1, 0)}


class FtraceTrace:
    """A line per hit, as the kernel would print it. With *headed* (into files) the lines are kept until `end`, since
    the heading of a `trace` file begins with how many they are; its `trace_pipe` has none."""

    def __init__(self, session: Session, stream: TextIO, *, headed: bool = False) -> None:
        self._session = session
        self._stream = stream
        self._kept: IO[bytes] | None = _store() if headed else None
        self._count = 0
        self._style = style_of(session.release)
        self._is_terminal = stream.isatty()
        self._arguments = {layout.id: arguments_of(layout, session.printed) for layout in session.plan.events}
        self._names = {layout.id: frozenset(one.name for one in layout.fields) for layout in session.plan.events}

    def write(self, events: Sequence[Event]) -> None:
        """Write *events*."""
        if not events:
            return
        lines = [self._line(event) for event in events]
        self._count += len(lines)
        if self._kept is not None:
            self._kept.write(_encoded("".join(lines)))
            return
        if self._is_terminal:
            from kprobes.render.escape import escape

            lines = [f"{escape(one[:-1])}\n" for one in lines]
        self._write("".join(lines))

    def end(self, session: Session) -> None:
        """Write what was kept, below its heading."""
        if self._kept is None:
            return
        lost = sum(one.lost for one in session.stats)
        with self._kept as kept:
            self._write(heading(self._style, cpus=session.cpus, entries=self._count, lost=lost))
            kept.seek(0)
            while piece := kept.read(_PIECE):
                self._write(piece.decode("utf-8", "surrogateescape"))
        self._kept = None

    def _write(self, text: str) -> None:
        """Write *text* with its exact bytes, which may be no UTF-8."""
        self._stream.flush()
        buffer = getattr(self._stream, "buffer", None)
        if buffer is None:
            self._stream.write(text)
        else:
            buffer.write(_encoded(text))
            buffer.flush()

    def _line(self, event: Event) -> str:
        names = self._names[event.layout.id]
        site = self._session.plan.sites[event.site_number]
        if "_flags" in names:
            flags, preempt = event["_flags"], event["_preempt"]
        else:
            flags, preempt = _USER_MOMENT[self._style.migration] if site.path else (0, 0)
        return line(
            Context(event["_comm"], event["_tid"], event["_cpu"], event["_time"], flags, preempt),
            event.layout.name if event.layout.definition else default_name(site, returns="_duration" in names),
            self._place(event, site, names),
            [make(event) for make in self._arguments[event.layout.id]],
            self._style,
        )

    def _place(self, event: Event, site: Site, names: frozenset[str]) -> str:
        """Return what stands in parentheses; of a return that isn't a definition's nobody knows where it leads: 0."""
        if "_func" in names:
            function = self._address(event["_func"])
            return f"{self._address(event['_ret'])} <- {function.partition('+')[0]}"
        if "_ip" in names:
            return self._address(event["_ip"])
        address = site.address + site.offset
        place = f"{address:#x}" if site.path else self._session.printed(address)
        return f"0 <- {place.partition('+')[0]}" if "_duration" in names else place

    def _address(self, value: int) -> str:
        if not isinstance(value, SymbolAddress):
            return f"{value:#x}"
        name = self._session.printed(int(value)) if value else "0"
        return _TRAMPOLINE if name.partition("+")[0] in _TRAMPOLINES else name


def arguments_of(layout: EventLayout, printed: Callable[[int], str]) -> list[Make]:
    """Return for each argument of *layout* what makes it of an event; *printed* names addresses."""
    fields: dict[str, list[Field]] = {}
    for field in layout.fields:
        if field.name not in HEAD:
            element = _ELEMENT.match(field.name)
            fields.setdefault(element["name"] if element else field.name, []).append(field)
    return [_maker(name, parts, printed) for name, parts in fields.items()]


def _maker(name: str, fields: list[Field], printed: Callable[[int], str]) -> Make:
    names = [field.name for field in fields]
    kind = fields[0].kind
    is_array = names[0] != name
    show = printed if kind in ("symbol", "symstr") else None if kind in _PLAIN else str

    def make(event: Event) -> Argument:
        values = [event[one] for one in names]
        return Argument(name, kind if kind in _KNOWN else "text", list(map(show, values)) if show else values, is_array)

    return make


def _store() -> IO[bytes]:
    from tempfile import SpooledTemporaryFile  # only for files

    return SpooledTemporaryFile(KEPT_IN_MEMORY)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def default_name(site: Site, *, returns: bool) -> str:
    """Return the name that the kernel gives an event at *site* whose definition has none: of a uprobe's return it is
    that of an entry, too."""
    if site.path:
        stem = re.split(r"[-._]", site.path.rpartition("/")[2], maxsplit=1)[0]
        return f"p_{stem}_{site.address + site.offset:#x}"[:_MOST_NAME]
    named = f"{site.symbol}_{site.offset}" if site.symbol else f"0x{site.address + site.offset:016x}"
    return re.sub(r"[:.]", "_", f"{'r' if returns else 'p'}_{named}"[:_MOST_NAME])
