"""Arguments: `name=term:type[count]`, and how the parts go together."""

from __future__ import annotations

import re
from errno import E2BIG, EINVAL

from kprobes.grammar import fields
from kprobes.grammar.facts import MAX_ARRAY, MAX_BODY, MAX_EVENT_SIZE, MAX_NAME, MAX_OPERATIONS
from kprobes.grammar.fetch import parse_term
from kprobes.grammar.numbers import leading, unsigned, unsigned_int
from kprobes.grammar.refusal import Refused
from kprobes.grammar.scan import COMM, DATA, IMMEDIATE, MEMORY, USER_MEMORY, VALUE, Scan
from kprobes.model.definition import AllParameters, Argument, BitField, FetchType, Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.grammar.facts import Dialect
    from kprobes.grammar.scan import Site
    from kprobes.model.definition import Term

# letters as the kernel's isalpha() has them: Latin-1
LETTERS = "A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\xff"
good_name = re.compile(f"[{LETTERS}_][{LETTERS}_0-9]*").fullmatch
_COMMON = ("type", "flags", "preempt_count", "pid", "tgid")
RESERVED = frozenset({f"common_{name}" for name in _COMMON} | {"__probe_ip", "__probe_ret_ip", "__probe_func"})
STRINGS = frozenset({"string", "ustring", "symstr"})
TYPES = {
    **{name: FetchType(name, 4, signed=True, string=True) for name in ("string", "ustring", "symstr")},
    **{
        f"{sign}{8 * size}": FetchType(f"{sign}{8 * size}", size, sign == "s")
        for sign in "usx"
        for size in (1, 2, 4, 8)
    },
    "char": FetchType("char", 1),
    "symbol": FetchType("symbol", 8),
}
ALL = "$arg*"
LARGEST = 8 * MAX_ARRAY


class Arguments:
    """Parses the arguments of one definition after the other; equal texts at equal sites are parsed once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._types = dict(TYPES)
        self._default = TYPES[dialect.machine.default_type]
        self._types["symbol"] = FetchType("symbol", self._default.size)
        if not dialect.symstr:
            del self._types["symstr"]
        if not dialect.char:
            del self._types["char"]
        self._known: dict[tuple[Site, int, str], Argument] = {}

    def parse(self, words: Sequence[str], site: Site) -> tuple[Argument, ...]:
        """Parse *words*, which stand behind the place.

        Raises:
            Refused: as the kernel does; its index counts the line's words.
        """
        found: list[Argument] = []
        names: set[str] = set()
        size = 0
        for at, word in enumerate(words):
            try:
                one = self._parse_one(word, at, names, site, size)
            except Refused as refused:
                refused.index = at + 2
                raise
            size += one.type.size * (one.count or 1)
            names.add(one.name)
            found.append(one)
        return tuple(found)

    def _parse_one(self, word: str, at: int, names: set[str], site: Site, size: int) -> Argument:
        key = (site, at if "=" not in word else -1, word)
        known = self._known.get(key)
        if word == ALL and self._dialect.all_arguments and site.types is None and (site.at_entry or site.at_return):
            return Argument(ALL, ALL, AllParameters(), self._default)
        if known is not None and known.name not in names and size + LARGEST < MAX_EVENT_SIZE:
            return known
        name, body = self._name(word, at)
        if not good_name(name):
            raise Refused("BAD_ARG_NAME")
        if name in RESERVED or name in names:
            raise Refused("USED_ARG_NAME")
        one = self._parse_body(name, body, Scan(self._dialect, site, len(word) - len(body)), size)
        self._known[key] = one
        return one

    def _name(self, word: str, at: int) -> tuple[str, str]:
        name, equals, body = word.partition("=")
        if equals:
            if len(name) > MAX_NAME:
                raise Refused("ARG_NAME_TOO_LONG")
            if not name:
                raise Refused("NO_ARG_NAME")
            return name, body
        if self._dialect.btf:
            variable = word.partition(":")[0]
            if good_name(variable):
                return variable, word
        return f"arg{at + 1}", word

    def _parse_body(self, name: str, body: str, scan: Scan, size: int) -> Argument:
        """Parse *body*, in the order in which the kernel finds fault with it."""
        dialect = self._dialect
        if len(body) > MAX_BODY:
            raise scan.refuse("ARG_TOO_LONG", number=E2BIG if dialect.two_steps else EINVAL)
        if not body:
            raise scan.refuse("NO_ARG_BODY")
        start = scan.offset
        text, colon, written = body.partition(":")
        written, count = _array(scan, written, len(text) + 1)
        type_at = len(text) + 1 if colon else 0
        kind = self._type(scan, text, written if colon else None, count)
        if not dialect.two_steps:
            _check_size(scan, size, kind, count)
        term = parse_term(scan, text)
        if not dialect.two_steps:
            scan.offset = start
        if scan.guessed and colon and "string" in written:
            scan.last = MEMORY
        if scan.type is not None:
            kind, term = self._typed(scan, kind, term, written if colon else None)
        if dialect.two_steps:
            _check_size(scan, size, kind, count)
        bits = _Finish(scan, kind, type_at, count).carry_out(written if colon else None)
        return Argument(name, body, term, kind, count, bits)

    def _type(self, scan: Scan, text: str, written: str | None, count: int) -> FetchType:
        type_at = len(text) + 1 if written is not None else 0
        if text in {"$comm", "$COMM"} or text[:2] == '\\"':
            if count or (written is not None and written != "string"):
                if self._dialect.two_steps:
                    raise scan.refuse("NEED_STRING_TYPE", type_at)
                raise Refused("")
            return self._types["string"]
        found = self._default if written is None else self._named(written, user=not scan.site.in_kernel)
        if found is None:
            raise scan.refuse("BAD_TYPE", type_at)
        return found

    def _named(self, written: str, *, user: bool) -> FetchType | None:
        if user and self._dialect.kernel_types and written in {"symbol", "symstr"}:
            return None
        if written[:1] != "b":
            return self._types.get(written)
        _, slash, container = written.partition("/")
        bits = unsigned(container) if slash else 0
        return self._types[f"u{bits}"] if bits in {8, 16, 32, 64} else None

    def _typed(self, scan: Scan, kind: FetchType, term: Term, written: str | None) -> tuple[FetchType, Term]:
        """Return the type of a parameter or field, its own where none is *written*, and what is fetched: strings follow
        a pointer."""
        assert scan.type is not None
        if written is None:
            return self._types[fields.type_of(scan.type, self._default.name) or self._default.name], term
        if "string" in written and not fields.is_characters(scan.type):
            if not fields.points_at_characters(scan.type, scan.site.character_ids):
                raise scan.refuse("BAD_TYPE4STR")
            scan.index += 1
            if scan.index == MAX_OPERATIONS:
                raise scan.refuse("TOO_MANY_OPS", number=E2BIG)
            scan.last = USER_MEMORY if written[0] == "u" else MEMORY
            term = Memory(term, 0, written[0] == "u")
        return kind, term


def _array(scan: Scan, written: str, ahead: int) -> tuple[str, int]:
    """Return the type and the count of `type[count]`; *ahead* is where it stands in the body."""
    written, bracket, number = written.partition("[")
    if not bracket:
        return written, 0
    number_at = ahead + len(written) + 1
    number, close, rest = number.partition("]")
    if not close:
        raise scan.refuse("ARRAY_NO_CLOSE", number_at + len(number))
    if rest:
        raise scan.refuse("BAD_ARRAY_SUFFIX", number_at + len(number) + 1)
    count = unsigned_int(number)
    if count <= 0:
        raise scan.refuse("BAD_ARRAY_NUM", number_at)
    if count > MAX_ARRAY:
        raise scan.refuse("ARRAY_TOO_BIG", number_at)
    return written, count


def _check_size(scan: Scan, size: int, kind: FetchType, count: int) -> None:
    if size + kind.size * (count or 1) > MAX_EVENT_SIZE:
        raise scan.refuse("EVENT_TOO_BIG", number=E2BIG)


_FOR_STRINGS = frozenset({MEMORY, USER_MEMORY, IMMEDIATE, COMM, DATA})
_FOR_SYMBOLS = frozenset({VALUE, MEMORY})


class _Finish:
    """The last operations of an argument: how its value gets into the record."""

    def __init__(self, scan: Scan, kind: FetchType, type_at: int, count: int) -> None:
        self._scan = scan
        self._kind = kind
        self._type_at = type_at
        self._count = count

    def carry_out(self, written: str | None) -> BitField | None:
        """Check that type, array and bit-field (of *written*) fit what was fetched; return the bit-field."""
        scan = self._scan
        if self._kind.string:
            self._store_string()
        elif scan.last not in {MEMORY, USER_MEMORY}:
            self._step(E2BIG)
        stored = scan.last
        bits = None
        if written is not None:
            bits = self._bits(written)
        elif scan.type is not None and (scan.bit_size % 8 or scan.bit_offset):
            self._step(EINVAL)
        if self._count:
            if self._kind.name == "symstr" or (not self._kind.string and stored != MEMORY):
                raise scan.refuse("BAD_STRING", self._type_at)
            self._step(E2BIG)
        return bits

    def _store_string(self) -> None:
        scan, symbol = self._scan, self._kind.name == "symstr"
        if scan.last not in (_FOR_SYMBOLS if symbol else _FOR_STRINGS):
            raise scan.refuse("BAD_SYMSTRING" if symbol else "BAD_STRING", self._type_at)
        if symbol or self._count or scan.last in {IMMEDIATE, COMM, DATA}:
            self._step(EINVAL)

    def _step(self, number: int) -> None:
        self._scan.index += 1
        if self._scan.index == MAX_OPERATIONS:
            raise self._scan.refuse("TOO_MANY_OPS", number=number if self._scan.dialect.two_steps else EINVAL)

    def _bits(self, written: str) -> BitField | None:
        if written[:1] != "b":
            return None
        saturating = self._scan.dialect.saturating
        width, length = leading(written[1:], self._scan.bits, saturating=saturating)
        rest = written[1 + length :]
        offset, length = leading(rest[1:], self._scan.bits, saturating=saturating)
        self._scan.index += 1
        if (
            not width
            or rest[:1] != "@"
            or not length
            or rest[1 + length : 2 + length] != "/"
            or self._scan.index == MAX_OPERATIONS
            or 8 * self._kind.size < (width + offset) % (1 << self._scan.bits)
        ):
            raise self._scan.refuse("BAD_BITFIELD", self._type_at)
        return BitField(width, offset)
