"""The words of a line: `p|r...`, the place, the arguments. kprobes and uprobes differ in all but the arguments."""

from __future__ import annotations

import re
from errno import E2BIG, EADDRNOTAVAIL, ECANCELED, EINVAL, ENOENT

from kprobes.grammar.arguments import LETTERS, Arguments, good_name
from kprobes.grammar.expansion import expand
from kprobes.grammar.facts import MAX_ACTIVE, MAX_ARGUMENTS, MAX_EVENT_NAME
from kprobes.grammar.fetch import split_offset
from kprobes.grammar.numbers import signed, unsigned, unsigned_int
from kprobes.grammar.refusal import Refused
from kprobes.grammar.registration import Registration
from kprobes.grammar.scan import Site
from kprobes.model.definition import AddressPlace, Definition, FilePlace, KernelPlace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.grammar.facts import Dialect
    from kprobes.grammar.world import World
    from kprobes.model.definition import Argument

_good_group = re.compile(f"[{LETTERS}_-][{LETTERS}_0-9-]*").fullmatch
RETURN = "%return"
_ENTRY = Site(True, at_entry=True, returning=False)
_RETURN = Site(True, at_entry=False, returning=True)
_NO_FUNCTION = Site(True, at_entry=False, returning=False)
_USER_ENTRY, _USER_RETURN = (Site(False, at_entry=False, returning=returning) for returning in (False, True))
_FILE_NAME_END = re.compile(r"[-._]")


class Reader:
    """Reads definitions of one dialect in one world.

    *logged* are the words that the error log would show of the last one, None where they are those that were written.
    """

    def __init__(self, dialect: Dialect, world: World) -> None:
        self._dialect = dialect
        self._world = world
        self._bits = dialect.machine.bits
        self._arguments = Arguments(dialect)
        self._places: dict[tuple[str, bool], tuple[KernelPlace | AddressPlace, bool, bool]] = {}
        self._sites: dict[tuple[str, bool, bool], Site] = {}
        self.registration = Registration(dialect, world)
        self.logged: Sequence[str] | None = None

    def read(self, words: Sequence[str], kind: str) -> Definition:
        """Return what *words* define, short of registering it.

        Raises:
            Refused: as the kernel does; with ECANCELED where *words* are no definition of this *kind*.
        """
        self.logged = None
        if words[0][0] not in "pr" or len(words) < 2:
            raise Refused("", number=ECANCELED)
        return self._kprobe(words) if kind == "kprobe" else self._uprobe(words)

    def _kprobe(self, words: Sequence[str]) -> Definition:
        head = words[0]
        is_return = head[0] == "r"
        maxactive = _maxactive(head, is_return)
        place, is_return, at_entry = self._where(words[1], is_return)
        group, event = self._event(head, head.find(":", 1) + 1)
        if not event:
            named = f"{place.symbol}_{place.offset}" if isinstance(place, KernelPlace) else place.text
            event = _cleaned(f"{'r' if is_return else 'p'}_{named}"[: MAX_EVENT_NAME - 1], self._dialect)
        arguments: tuple[Argument, ...] = ()
        if len(words) > 2:
            arguments = self._kernel_arguments(words, self._site(place, is_return, at_entry))
        return Definition(is_return, group or "kprobes", event, place, arguments, maxactive)

    def _where(self, where: str, is_return: bool) -> tuple[KernelPlace | AddressPlace, bool, bool]:
        """Return the place, whether it is a return probe, and whether it is a function's entry."""
        known = self._places.get((where, is_return))
        if known is None:
            address = unsigned(where, self._bits)
            known = (
                (AddressPlace(address, self._bits // 4), is_return, False)
                if address >= 0
                else self._symbol(where, is_return)
            )
            self._places[where, is_return] = known
        return known

    def _site(self, place: KernelPlace | AddressPlace, is_return: bool, at_entry: bool) -> Site:
        """Return the site of arguments at *place*. An address is neither entry nor return to the kernel."""
        if isinstance(place, AddressPlace):
            return _NO_FUNCTION
        types = self._world.types if self._dialect.btf else None
        if types is None:
            return _RETURN if is_return else _ENTRY if at_entry else _NO_FUNCTION
        known = self._sites.get((place.symbol, is_return, at_entry))
        if known is not None:
            return known
        site = self._sites[place.symbol, is_return, at_entry] = Site(True, at_entry=at_entry, returning=is_return)
        site.types, site.character_ids = types, self._world.character_ids
        site.function = types.function(place.symbol) if ":" not in place.symbol else None
        return site

    def _kernel_arguments(self, words: Sequence[str], site: Site) -> tuple[Argument, ...]:
        rest = words[2:]
        if self._dialect.btf:
            rest, shown = expand(rest, site, self._dialect)
            if shown:
                self.logged = [*words[:2], *rest]
        return self._arguments.parse(self._limited(rest), site)

    def _limited(self, words: Sequence[str]) -> Sequence[str]:
        if len(words) <= MAX_ARGUMENTS:
            return words
        if self._dialect.argument_limit:
            raise Refused("TOO_MANY_ARGS" if self._dialect.limit_message else "", 2, 0, E2BIG)
        return words[:MAX_ARGUMENTS]

    def _symbol(self, where: str, is_return: bool) -> tuple[KernelPlace, bool, bool]:
        """Return the place, whether it is a return probe, and whether it is a function's entry."""
        if "/" in where and ":" in where:
            raise Refused("", number=ECANCELED)
        symbol, percent, _ = where.partition("%")
        if percent:
            if where[len(symbol) :] != RETURN:
                raise Refused("BAD_ADDR_SUFFIX", 1, len(symbol))
            is_return = True
        name, distance = split_offset(symbol)
        offset, error = signed(distance, self._bits) if distance else (0, 0)
        if error or not 0 <= offset < 1 << 32:
            raise Refused("BAD_PROBE_ADDR", 1)
        place = KernelPlace(name, offset)
        early, registration = self._dialect.early_symbols, self.registration
        if early:
            _check_count(registration.count(name), 1, EINVAL, EINVAL)
        entry = registration.entry(place)
        if entry == EINVAL and is_return:
            raise Refused("BAD_RETPROBE", 1)
        if not early and ":" not in name:
            _check_count(registration.count(name), 1, ENOENT, EADDRNOTAVAIL)
        return place, is_return, entry == 0

    def _event(self, head: str, at: int) -> tuple[str, str]:
        """Return group and event of *head* from the index *at* on; empty where they aren't given."""
        if not at:
            return "", ""
        text = head[at:]
        separator = text.find("/")
        if separator < 0 and self._dialect.dotted:
            separator = text.find(".")
        group = ""
        if separator >= 0:
            group, text = text[:separator], text[separator + 1 :]
            self._check_group(group, at)
            at += separator + 1
        if not text:
            if separator >= 0 and self._dialect.group_alone:
                return group, ""
            raise Refused("NO_EVENT_NAME", 0, at)
        if len(text) >= MAX_EVENT_NAME:
            raise Refused("EVENT_TOO_LONG", 0, at)
        if not good_name(text):
            raise Refused("BAD_EVENT_NAME", 0, at)
        return group, text

    def _check_group(self, group: str, at: int) -> None:
        if not group:
            raise Refused("NO_GROUP_NAME", 0, at)
        if len(group) >= MAX_EVENT_NAME:
            raise Refused("GROUP_TOO_LONG", 0, at)
        if not (_good_group if self._dialect.hyphen else good_name)(group):
            raise Refused("BAD_GROUP_NAME", 0, at)

    def _uprobe(self, words: Sequence[str]) -> Definition:
        head = words[0]
        if self._dialect.argument_limit:
            self._limited(words[2:])
        if "/" not in words[1]:
            raise Refused("", number=ECANCELED)
        place, is_return = self._file(words[1])
        is_return = is_return or head[0] == "r"
        group, event = self._event(head, 2 if head[1:2] == ":" else 0)
        if not event:
            name = _FILE_NAME_END.split(place.path.rpartition("/")[2], maxsplit=1)[0]
            event = f"p_{name}_0x{place.offset:x}"[: MAX_EVENT_NAME - 1]
        site = _USER_RETURN if is_return else _USER_ENTRY
        arguments = self._arguments.parse(self._limited(words[2:]), site)
        return Definition(is_return, group or "uprobes", event, place, arguments)

    def _file(self, where: str) -> tuple[FilePlace, bool]:
        """Return the place `PATH:OFFSET[(COUNTER)][%return]` and whether it is a return probe."""
        path, colon, text = where.rpartition(":")
        if not colon or not "0" <= text[:1] <= "9":
            raise Refused("", number=ECANCELED)
        start = len(path) + 1
        error, regular = self._look(path)
        if error:
            raise Refused("FILE_NOT_FOUND", 1, 0, error)
        if not regular:
            raise Refused("NO_REGULAR_FILE", 1)
        text, counter = _counter(text, start, self._bits)
        offset_text, percent, _ = text.partition("%")
        if percent and text[len(offset_text) :] != RETURN:
            raise Refused("BAD_ADDR_SUFFIX", 1, start + len(offset_text))
        offset = unsigned(offset_text, self._bits)
        if offset < 0:
            raise Refused("BAD_UPROBE_OFFS", 1, start, -offset)
        return FilePlace(path, offset, counter, self._bits // 4), bool(percent)

    def _look(self, path: str) -> tuple[int, bool]:
        files = self._world.files
        if not path:
            return ENOENT, False
        return files.look(path)[:2] if files is not None else (0, True)


def _maxactive(head: str, is_return: bool) -> int:
    """Return MAXACTIVE of `r[MAXACTIVE][:...]`, 0 where there is none."""
    if not "0" <= head[1:2] <= "9":
        return 0
    if not is_return:
        raise Refused("BAD_MAXACT_TYPE", 0, 1)
    number = head[1:].partition(":")[0]
    value = unsigned_int(number) if len(number) < MAX_EVENT_NAME else 0
    if value <= 0:
        raise Refused("BAD_MAXACT", 0, 1)
    if value - (1 << 32 if value >> 31 else 0) > MAX_ACTIVE:
        raise Refused("MAXACT_TOO_BIG", 0, 1)
    return value


def _check_count(count: int, index: int, missing: int, ambiguous: int) -> None:
    if count == 0:
        raise Refused("BAD_PROBE_ADDR", index, 0, missing)
    if count > 1:
        raise Refused("NON_UNIQ_SYMBOL", index, 0, ambiguous)


def _counter(text: str, start: int, bits: int) -> tuple[str, int]:
    """Return *text* without the reference counter's offset `(N)` at its end, and that offset."""
    offset, brace, number = text.partition("(")
    if not brace:
        return text, 0
    number, close, rest = number.partition(")")
    number_at = start + len(offset) + 1
    if not close:
        raise Refused("REFCNT_OPEN_BRACE", 1, number_at + len(number))
    if rest:
        raise Refused("BAD_REFCNT_SUFFIX", 1, number_at + len(number) + 1)
    value = unsigned(number, bits)
    if value < 0:
        raise Refused("BAD_REFCNT", 1, number_at, -value)
    return offset, value


def _cleaned(name: str, dialect: Dialect) -> str:
    """Return a default event name as the kernel cleans it: never its first character."""
    rest = name[1:].replace(":", "_").replace(".", "_")
    return name[0] + (rest.replace("*", "_") if dialect.star_names else rest)
