"""The probe events that a kernel has in tracefs: defined, listed and removed by the kernel's own texts."""

from __future__ import annotations

import re
from errno import EBUSY, ENOENT
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kprobes.errors import SyscallError, UnsupportedError, UsageError
from kprobes.frozen import dataclass

if TYPE_CHECKING:
    from typing import Protocol

    class Tracefs(Protocol):
        """Where the files are."""

        def read(self, path: str) -> bytes | None:
            """Return the content of a file."""

        def write(self, path: str, content: bytes) -> int:
            """Add to a file; return 0 or the errno."""


FILES = ("kprobe_events", "uprobe_events")
_NAMED = re.compile(r"(?P<kind>[pr]\d*):(?P<name>[^\s/]+/\S+) (?P<rest>.*)")


@dataclass(frozen=True, slots=True)
class ProbeEvent:
    """One event: *name* is GROUP/EVENT, *definition* its line, *file* the one that lists it.

    *hits* and *misses* are what the kernel's profile tells; -1 where it tells none. *filter* is empty where there is
    none, *triggers* has a line each.
    """

    name: str
    definition: str
    file: str
    enabled: bool
    hits: int
    misses: int
    filter: str = ""
    triggers: tuple[str, ...] = ()


class ProbeEvents:
    """The probe events of one kernel."""

    def __init__(self, tracefs: Tracefs) -> None:
        self._tracefs = tracefs

    def matching(self, pattern: str = "*") -> list[ProbeEvent]:
        """Return the events whose `GROUP/EVENT`, or EVENT alone, matches the glob *pattern*.

        Raises:
            UnsupportedError: there are no probe events that can be read.
        """
        found = []
        if all(self._tracefs.read(file) is None for file in FILES):
            raise UnsupportedError(
                "this kernel has no probe events that we may read",
                hint="run as root on a kernel with CONFIG_KPROBE_EVENTS or CONFIG_UPROBE_EVENTS, or add --vm",
            )
        for file in FILES:
            profile = self._profile(file.replace("events", "profile"))
            for line in self._lines(file):
                match = _NAMED.match(line)
                if match is None or not _fits(match["name"], pattern):
                    continue
                event = match["name"].rpartition("/")[2]
                hits, misses = profile.get(event, (-1, -1))
                enabled = self._text(match["name"], "enable") in ("1", "1*")
                set_ = self._text(match["name"], "filter").removeprefix("none")
                lines = self._text(match["name"], "trigger").splitlines()
                triggers = tuple(one for one in lines if not one.startswith("#"))
                found.append(ProbeEvent(match["name"], line, file, enabled, hits, misses, set_, triggers))
        return found

    def _text(self, name: str, file: str) -> str:
        return (self._tracefs.read(f"events/{name}/{file}") or b"").decode("utf-8", "surrogateescape").strip()

    def add(self, definition: str) -> ProbeEvent | None:
        """Define an event; return it as the kernel lists it, None where the line took one away.

        Raises:
            DefinitionError: the kernel refuses it; with the message and the caret of its error log.
            UnsupportedError: tracefs can't be written, or the kernel has no events of that kind.
            UsageError: it is several lines, of which some might be taken and others not.
        """
        if "\n" in definition.strip():
            raise UsageError(f"{definition!r} has several lines", hint="give each definition as a word of its own")
        before = {one.definition for one in self.matching()}
        file = _file_of(definition)
        code = self._tracefs.write(file, f"{definition}\n".encode("utf-8", "surrogateescape"))
        if code == ENOENT and self._tracefs.read(file) is None:
            raise UnsupportedError(f"this kernel has no {file}", hint="add --vm for a kernel in a box")
        if code:
            raise self._refusal(definition, code)
        new = [one for one in self.matching() if one.definition not in before]
        return new[-1] if new else None

    def remove(self, event: ProbeEvent) -> None:
        """Take *event* away.

        Raises:
            SyscallError: it is in use (EBUSY).
        """
        self._remove(event, "")

    def take_back(self, probe: ProbeEvent) -> None:
        """Take the one *probe* away: others of its event, which were there before it, stay.

        Raises:
            SyscallError: the event is in use (EBUSY).
        """
        self._remove(probe, f" {probe.definition.partition(' ')[2]}")

    def _remove(self, event: ProbeEvent, which: str) -> None:
        line = f"-:{event.name}{which}\n".encode("utf-8", "surrogateescape")
        code = self._tracefs.write(event.file, line)
        if code and code != ENOENT:
            hint = "disable it first, or end who uses it" if code == EBUSY else ""
            raise SyscallError(f"removing {event.name}", code, hint=hint)

    def enable(self, event: ProbeEvent, *, on: bool) -> None:
        """Let *event* be hit, or not.

        Raises:
            SyscallError: the kernel can't arm it.
        """
        code = self._tracefs.write(f"events/{event.name}/enable", b"1" if on else b"0")
        if code:
            raise SyscallError(f"{'enabling' if on else 'disabling'} {event.name}", code)

    def set(self, event: ProbeEvent, file: str, text: str) -> None:
        """Write *text* to the `filter` or the `trigger` of *event*.

        Raises:
            DefinitionError: the kernel refuses it; with the message and the caret of its error log, if it has one.
        """
        code = self._tracefs.write(f"events/{event.name}/{file}", f"{text}\n".encode("utf-8", "surrogateescape"))
        if code:
            raise self._refusal(text, code)

    def _lines(self, file: str) -> list[str]:
        return (self._tracefs.read(file) or b"").decode("utf-8", "surrogateescape").splitlines()

    def _profile(self, file: str) -> dict[str, tuple[int, int]]:
        """Return (hits, misses) by event; a uprobe's profile has no misses."""
        found = {}
        for line in self._lines(file):
            words = line.split()
            if file.startswith("kprobe") and len(words) == 3:
                found[words[0]] = (int(words[1]), int(words[2]))
            elif len(words) >= 3:
                found[words[-2]] = (int(words[-1]), -1)
        return found

    def _refusal(self, definition: str, code: int) -> Exception:
        from kprobes.engines.kernel.refusals import definition_refusal

        log = (self._tracefs.read("error_log") or b"").decode("utf-8", "surrogateescape")
        return definition_refusal(definition, code, log)


def one_of(events: list[ProbeEvent], pattern: str) -> list[ProbeEvent]:
    """Return *events* that match.

    Raises:
        UsageError: none does.
    """
    if not events:
        raise UsageError(f"there is no probe event {pattern!r}", hint="`kprobes events list` shows them")
    return events


def _fits(name: str, pattern: str) -> bool:
    if pattern.endswith("/"):
        pattern += "*"
    return fnmatchcase(name if "/" in pattern else name.rpartition("/")[2], pattern)


def _file_of(definition: str) -> str:
    """Return the file that *definition* goes to: a place of a uprobe is a path."""
    words = definition.split()
    return FILES[1] if len(words) > 1 and "/" in words[1].partition(":")[0] else FILES[0]
