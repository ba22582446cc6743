"""A file of definitions, line by line: the verdict on one depends on those before it.

`Events` stands for the events that a tracefs has: fresh ones begin with none. Lines go the kernel's way: comments are
cut off, words are split at its blanks, a deletion looks for what is there.
"""

from __future__ import annotations

import re
from errno import ECANCELED, EEXIST, ENOENT

from kprobes.errors import DefinitionError, UsageError
from kprobes.frozen import dataclass, replace
from kprobes.grammar.facts import DEFAULT, MAX_BODY, MAX_LINE, Dialect, dialect
from kprobes.grammar.probes import Reader
from kprobes.grammar.refusal import Refused, as_error, as_text
from kprobes.grammar.world import UNKNOWN, World
from kprobes.model.definition import AddressPlace, Definition, Deletion, FilePlace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.grammar.world import Symbols

KINDS = ("kprobe", "uprobe", "dynamic")
_BLANKS = re.compile("[\t-\r \xa0]+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the kernel says of one line: it takes it (*error* is None) or not.

    *means* is the definition or the deletion, None for a line that says nothing and for one that is refused.
    """

    means: Definition | Deletion | None = None
    error: DefinitionError | None = None

    @property
    def ok(self) -> bool:
        """Return whether the kernel takes the line."""
        return self.error is None

    @property
    def canonical(self) -> str | None:
        """Return the definition as the kernel lists it, None where the line defines none."""
        return as_text(self.means.text) if isinstance(self.means, Definition) else None


def parse(
    line: str,
    kernel: str | Dialect = DEFAULT,
    kind: str = "kprobe",
    symbols: Symbols | None = None,
    *,
    world: World = UNKNOWN,
) -> Definition | Deletion | None:
    """Return what one *line* of kprobe_events (*kind* `kprobe`) or uprobe_events (`uprobe`) means; None if nothing.

    `kind="dynamic"` is dynamic_events, as far as it defines probes of the two kinds. Deletions are parsed, not looked
    up. *symbols* replace those of *world*.

    Raises:
        DefinitionError: the kernel refuses the line.
        UsageError: there is no such kernel or kind.
    """
    events = Events(kernel, kind, replace(world, symbols=symbols) if symbols is not None else world)
    try:
        means = events.read(line)
        return events.define(means) if isinstance(means, Definition) else means
    except Refused as refused:
        raise events.error_of(refused, line) from None


class Events:
    """The events of one kernel, of a *kind* (`kprobe`, `uprobe`, or `dynamic` for both)."""

    def __init__(self, kernel: str | Dialect = DEFAULT, kind: str = "kprobe", world: World = UNKNOWN) -> None:
        if kind not in KINDS:
            raise UsageError(f"no kind of events {kind!r}", hint=f"there are {', '.join(KINDS)}")
        self.dialect = dialect(kernel) if isinstance(kernel, str) else kernel
        self.kind = kind
        self._world = world
        self._reader = Reader(self.dialect, world)
        self._probes: dict[tuple[str, str], list[Definition]] = {}
        self._groups: dict[str, None] = {}
        self._in_files: dict[tuple[str, int], list[FilePlace]] = {}

    def __iter__(self) -> Iterator[Definition]:
        """Iterate over the probes that are defined, by event."""
        for probes in self._probes.values():
            yield from probes

    def listing(self) -> Iterator[str]:
        """Return what the events file lists, by event."""
        return (as_text(probe.text) for probe in self)

    def check(self, line: str) -> Verdict:
        """Return the verdict on *line* (without its newline), and keep what it does."""
        try:
            means = self.read(line)
            if isinstance(means, Definition):
                means = self.define(means)
            elif means is not None:
                self._delete(means)
        except Refused as refused:
            return Verdict(None, self.error_of(refused, line))
        return Verdict(means, None)

    def read(self, line: str) -> Definition | Deletion | None:
        """Return what *line* means by itself.

        Raises:
            Refused: as the kernel does.
        """
        self._reader.logged = None
        if not line.isascii():
            line = line.encode("utf-8", "surrogateescape").decode("latin-1")
        if len(line) > MAX_LINE or "\0" in line:
            raise Refused("")
        line = line.partition("#")[0]
        words = _words(line)
        is_deletion = line[:1] == "-" if self.dialect.bare_minus else bool(words) and words[0][0] == "-"
        if is_deletion or (self.kind == "dynamic" and line[:1] == "!"):
            return self._deletion(words)
        if not words:
            return None
        for kind in ("kprobe", "uprobe") if self.kind == "dynamic" else (self.kind,):
            try:
                return self._reader.read(words, kind)
            except Refused as refused:
                if refused.number != ECANCELED:
                    raise
        if self.kind != "dynamic" or not self.dialect.dynamic_message:
            raise Refused("")
        self._reader.logged = [line]
        raise Refused("NO_DYNAMIC_EVENT")

    def _deletion(self, words: Sequence[str]) -> Deletion:
        head = words[0]
        if head[0] == "-":
            if head[1:2] != ":":
                raise Refused("")
            event = head[2:]
        else:
            event = head.partition(":")[2]
            if ":" not in head:
                raise Refused("")
        before, slash, behind = event.partition("/")
        group, event = (before, behind) if slash else (None, event)
        if not event and (group is None or not self.dialect.group_delete):
            raise Refused("")
        return Deletion(group, event, tuple(words[1:]))

    def error_of(self, refused: Refused, line: str) -> DefinitionError:
        """Return what users are told of *line*, the last one that was read, when it was *refused*."""
        return as_error(refused, self._reader.logged or split(line), self.dialect)

    def define(self, probe: Definition) -> Definition:
        """Add *probe*: to the event of its name, if there is one that fits, or as an event of its own.

        Raises:
            Refused: as the kernel does.
        """
        key = (probe.group, probe.event)
        siblings = self._probes.get(key)
        if isinstance(probe.place, FilePlace):
            self._check_counters(probe)
        if siblings is not None and siblings[0].is_user != probe.is_user:
            raise Refused("EVENT_EXIST", 0, 0, EEXIST)
        if siblings is not None:
            self._check_siblings(probe, siblings)
        elif f"{probe.group}/{probe.event}" in self._world.events:
            raise Refused("EVENT_EXIST", 0, 0, EEXIST)
        if not isinstance(probe.place, FilePlace):
            maxactive = self._reader.registration.register(probe)
            if maxactive != probe.maxactive:
                probe = replace(probe, maxactive=maxactive)
        if siblings is None:
            self._probes[key] = [probe]
            self._groups[probe.group] = None
        else:
            siblings.append(probe)
        if isinstance(probe.place, FilePlace):
            self._in_files[self._file(probe.place.path), probe.place.offset].append(probe.place)
        return probe

    def _check_siblings(self, probe: Definition, siblings: list[Definition]) -> None:
        first = siblings[0]
        if first.is_return != probe.is_return:
            raise Refused("DIFF_PROBE_TYPE", 0, 0, EEXIST)
        mine, theirs = probe.arguments, first.arguments
        if len(mine) != len(theirs):
            raise Refused("DIFF_ARG_TYPE", min(len(mine), len(theirs)) + 2, 0, EEXIST)
        for at, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            if (one.type, one.count, one.name) != (other.type, other.count, other.name):
                raise Refused("DIFF_ARG_TYPE", at + 2, 0, EEXIST)
        bodies = [one.body for one in mine]
        for sibling in siblings:
            if self._same_place(probe, sibling) and bodies == [one.body for one in sibling.arguments]:
                raise Refused("SAME_PROBE", 0, 0, EEXIST)

    def _same_place(self, one: Definition, other: Definition) -> bool:
        mine, theirs = one.place, other.place
        if isinstance(mine, FilePlace) and isinstance(theirs, FilePlace):
            return mine.offset == theirs.offset and self._file(mine.path) == self._file(theirs.path)
        # the kernel compares symbols, and an address has none: any two are the same to it
        return mine == theirs or (isinstance(mine, AddressPlace) and isinstance(theirs, AddressPlace))

    def _check_counters(self, probe: Definition) -> None:
        """Refuse a second reference counter for one place."""
        mine = probe.place
        assert isinstance(mine, FilePlace)
        others = self._in_files.setdefault((self._file(mine.path), mine.offset), [])
        if any(other.reference_counter != mine.reference_counter for other in others):
            raise Refused("")

    def _file(self, path: str) -> str:
        files = self._world.files
        return files.look(path)[2] if files is not None else path

    def _delete(self, deletion: Deletion) -> None:
        """Take away every probe that *deletion* means."""
        found = False
        for key in self._keys_of(deletion):
            probes = self._probes.get(key, [])
            gone = [probe for probe in probes if self._is_meant(probe, deletion.words)]
            for probe in gone:
                probes.remove(probe)
                if isinstance(probe.place, FilePlace):
                    self._in_files[self._file(probe.place.path), probe.place.offset].remove(probe.place)
            if gone and not probes:
                del self._probes[key]
            found = found or bool(gone)
        if not found:
            raise Refused("", number=ENOENT)

    def _keys_of(self, deletion: Deletion) -> list[tuple[str, str]]:
        if not deletion.event:
            return [key for key in self._probes if key[0] == deletion.group]
        groups = list(self._groups) if deletion.group is None else [deletion.group]
        return [(group, deletion.event) for group in groups]

    def _is_meant(self, probe: Definition, words: Sequence[str]) -> bool:
        """Return whether *probe* has the place and the first arguments that *words* say, written as it is listed."""
        if not words:
            return True
        place = probe.place
        text = place.text if isinstance(place, FilePlace) else place.text[:MAX_BODY]
        if text != words[0] or len(words) - 1 > len(probe.arguments):
            return False
        limit = None if self.dialect.exact_delete else MAX_BODY
        return all(one.text[:limit] == word for one, word in zip(probe.arguments, words[1:], strict=False))


def _words(line: str) -> list[str]:
    if line.isprintable() and line.isascii():
        return line.split()
    return [word for word in _BLANKS.split(line) if word]


def split(line: str) -> list[str]:
    """Return the words of *line* as the kernel splits it, as text."""
    if line.isascii():
        return _words(line.partition("#")[0])
    line = line.encode("utf-8", "surrogateescape").decode("latin-1")
    return _words(line.partition("#")[0])
