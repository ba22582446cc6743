"""Function symbols of an ELF file, from all the tables that tell them.

In this order: `.dynsym` (what is exported), `.symtab`, `.gnu_debugdata` (a compressed symbol table that Fedora and
others leave in stripped files), and a separate debug file. One name is searched for in the bytes of
a table; the whole is only read for globs and addresses.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from functools import cached_property

from kprobes.errors import FormatError
from kprobes.frozen import dataclass
from kprobes.symbols.elf import SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB, SHT_VERSIONS, ElfFile, Section
from kprobes.symbols.mangled import mangled_prefixes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SYMBOL = struct.Struct("<IBBHQQ")
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_TLS, STT_IFUNC = 0, 1, 2, 6, 10
_BINDINGS = {0: "local", 1: "global", 2: "weak", 10: "unique"}
_RANKS = {"global": 0, "unique": 0, "weak": 1, "local": 2}
NAME_LIMIT = 1 << 16
# So many searches through a table are quicker than reading all of it.
FEW = 32
DEBUGDATA_LIMIT = 256 << 20
VERSION_HIDDEN = 0x8000


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """A function: *address* as the file has it (before it is loaded elsewhere), *size* in bytes, 0 where unknown.

    *ifunc*: the address is that of the resolver, which chooses the function when the file is loaded. *typed*: the table
    says that it is a function, which some written in assembly don't. *old*: a version of the name that programs linked
    today don't get.
    """

    name: str
    address: int
    size: int
    binding: str
    ifunc: bool = False
    typed: bool = True
    old: bool = False


@dataclass(frozen=True, slots=True)
class ElfVariable:
    """A variable: *address* as the file has it, *size* in bytes, 0 where unknown."""

    name: str
    address: int
    size: int
    is_thread_local: bool = False


class SymbolTable:
    """One table: *symbols* and *strings* as in the file, *versions* of each symbol or none."""

    def __init__(self, symbols: bytes, strings: bytes, versions: bytes = b"") -> None:
        self._symbols = symbols[: len(symbols) // _SYMBOL.size * _SYMBOL.size]
        self._strings = strings
        self._versions = memoryview(versions[: len(versions) & ~1]).cast("H")

    def lookup(self, name: str) -> Iterator[ElfSymbol]:
        """Return the defined functions called *name*, with or without a version behind it (`name@@VERS_1`)."""
        wanted = name.encode("utf-8", "surrogateescape")
        if not wanted or b"\0" in wanted:
            return
        places = set(self._names_that_are(wanted))
        for index in self._entries_named(places):
            _, info, _, section, _, _ = _SYMBOL.unpack_from(self._symbols, index * _SYMBOL.size)
            if section and info & 15 in (STT_FUNC, STT_IFUNC, STT_NOTYPE):
                yield self.symbol(index)

    def variables(self, name: str) -> Iterator[ElfVariable]:
        """Return the defined variables called *name*."""
        wanted = name.encode("utf-8", "surrogateescape")
        if not wanted or b"\0" in wanted:
            return
        for index in self._entries_named(set(self._names_that_are(wanted))):
            _, info, _, section, address, size = _SYMBOL.unpack_from(self._symbols, index * _SYMBOL.size)
            if section and info & 15 in (STT_NOTYPE, STT_OBJECT, STT_TLS):
                yield ElfVariable(name, address, size, info & 15 == STT_TLS)

    def functions(self) -> list[tuple[int, int]]:
        """Return (address, number of the entry) of each defined function."""
        return [
            (address, index)
            for index, (name, info, _, section, address, _) in enumerate(_SYMBOL.iter_unpack(self._symbols))
            if name and section and (info & 15 == STT_FUNC or info & 15 == STT_IFUNC)
        ]

    def labels(self) -> list[int]:
        """Return the addresses of the defined symbols without a type."""
        entries = _SYMBOL.iter_unpack(self._symbols)
        return [
            address for name, info, _, section, address, _ in entries if name and section and info & 15 == STT_NOTYPE
        ]

    def matching(self, matches: Callable[[bytes], object]) -> list[int]:
        """Return the numbers of the defined functions whose name (without its version) *matches* accepts."""
        strings, find = self._strings, self._strings.find
        return [
            index
            for index, (name, info, _, section, _, _) in enumerate(_SYMBOL.iter_unpack(self._symbols))
            if name
            and section
            and (info & 15 == STT_FUNC or info & 15 == STT_IFUNC)
            and matches(strings[name : find(b"\0", name, name + NAME_LIMIT)].partition(b"@")[0])
        ]

    def symbol(self, index: int) -> ElfSymbol:
        """Return an entry as a symbol."""
        name, info, _, _, address, size = _SYMBOL.unpack_from(self._symbols, index * _SYMBOL.size)
        plain, _, version = self._strings[name : self._strings.find(b"\0", name, name + NAME_LIMIT)].partition(b"@")
        old = bool(version) and not version.startswith(b"@")
        if index < len(self._versions):
            old = self._versions[index] >= VERSION_HIDDEN
        kind = info & 15
        text = plain.decode("utf-8", "surrogateescape")
        return ElfSymbol(
            text, address, size, _BINDINGS.get(info >> 4, "local"), kind == STT_IFUNC, kind != STT_NOTYPE, old
        )

    def _names_that_are(self, wanted: bytes) -> Iterator[int]:
        """Return where the string *wanted* stands. Names may be the tail of others, so it may begin anywhere."""
        at = self._strings.find(wanted)
        while at >= 0:
            if self._strings[at + len(wanted) : at + len(wanted) + 1] in (b"\0", b"@"):
                yield at
            at = self._strings.find(wanted, at + 1)

    def _entries_named(self, places: set[int]) -> Iterator[int]:
        """Return the entries whose name stands at one of *places*."""
        if len(places) > FEW:
            entries = _SYMBOL.iter_unpack(self._symbols)
            yield from (index for index, entry in enumerate(entries) if entry[0] in places)
            return
        for place in sorted(places):
            needle = place.to_bytes(4, "little")
            at = self._symbols.find(needle)
            while at >= 0:
                if at % _SYMBOL.size == 0:
                    yield at // _SYMBOL.size
                at = self._symbols.find(needle, at + 1)


class ElfSymbols:
    """The functions of *elf*. *root* is put before the directory of separate debug files (`/proc/PID/root`).

    Raises:
        FormatError: a table is malformed.
    """

    def __init__(self, elf: ElfFile, root: str = "") -> None:
        self.elf = elf
        self._root = root
        self._tables: list[SymbolTable] = []
        self._pending = self._find_tables()

    def lookup(self, name: str) -> list[ElfSymbol]:
        """Return the functions called *name*, at one address each, in the first table that has them.

        Of a name that is exported and also local somewhere the exported is meant; of versions, today's. A name that
        nothing has may be that of a C++ function.
        """
        for table in self._each_table():
            found = [s for s in table.lookup(name) if self.elf.is_code(s.address)]
            if found:
                return _preferred(found)
        return [symbol for prefix in mangled_prefixes(name) for symbol in self.glob(f"{prefix}*")]

    def variables(self, name: str) -> list[ElfVariable]:
        """Return the variables called *name* in the first table that has any."""
        for table in self._each_table():
            found = list(table.variables(name))
            if found:
                return found
        return []

    def glob(self, pattern: str) -> list[ElfSymbol]:
        """Return the functions that match *pattern*, one for each address, in the order of addresses.

        Any of the names of an address may match; the symbol has the best known of those that do.
        """
        import re
        from fnmatch import translate

        matches = re.compile(translate(pattern).encode("utf-8", "surrogateescape")).match
        found: dict[int, ElfSymbol] = {}
        for table in self._each_table():
            for index in table.matching(matches):
                symbol = table.symbol(index)
                known = found.setdefault(symbol.address, symbol)
                if known is not symbol and _rank(symbol) < _rank(known):
                    found[symbol.address] = symbol
        return [found[address] for address in sorted(found) if self.elf.is_code(address)]

    @cached_property
    def functions(self) -> Sequence[ElfSymbol]:
        """Return all functions in the order of addresses; of several names for one address the best known."""
        return self.glob("*")

    @cached_property
    def _by_address(self) -> tuple[list[int], dict[int, list[tuple[SymbolTable, int]]]]:
        """Return the addresses of all functions in ascending order, and the entries that name each."""
        entries: dict[int, list[tuple[SymbolTable, int]]] = {}
        for table in self._each_table():
            for address, index in table.functions():
                entries.setdefault(address, []).append((table, index))
        return sorted(address for address in entries if self.elf.is_code(address)), entries

    def symbol_at(self, address: int) -> tuple[ElfSymbol, int] | None:
        """Return the function that *address* (as the file has it) lies in, and the offset into it; or None."""
        addresses, entries = self._by_address
        at = bisect_right(addresses, address) - 1
        if at < 0:
            return None
        symbol = min((table.symbol(index) for table, index in entries[addresses[at]]), key=_rank)
        offset = address - symbol.address
        # A function written in assembly may not tell its size: it reaches to the next.
        return (symbol, offset) if offset < symbol.size or (not symbol.size and self.elf.is_code(address)) else None

    def size_of(self, symbol: ElfSymbol) -> int:
        """Return the size of *symbol*; to the next function where its table doesn't tell."""
        if symbol.size:
            return symbol.size
        addresses = self._by_address[0]
        after = bisect_right(addresses, symbol.address)
        if after < len(addresses):
            return addresses[after] - symbol.address
        ends = [
            s.address + s.file_size for s in self.elf.loads if s.address <= symbol.address < s.address + s.file_size
        ]
        return ends[0] - symbol.address if ends else 0

    def labels(self) -> set[int]:
        """Return the addresses of code that a symbol without a type names, as functions in assembly may have."""
        return {address for table in self._each_table() for address in table.labels() if self.elf.is_code(address)}

    def nearest(self, name: str) -> tuple[str, ...]:
        """Return names of functions that resemble *name*."""
        from kprobes.symbols.nearest import nearest_names

        return nearest_names(name, (symbol.name for symbol in self.functions))

    def _each_table(self) -> Iterator[SymbolTable]:
        yield from self._tables
        for table in self._pending:
            self._tables.append(table)
            yield table

    def _find_tables(self) -> Iterator[SymbolTable]:
        elf = self.elf
        yield from _tables_of(elf, SHT_DYNSYM)
        full = list(_tables_of(elf, SHT_SYMTAB))
        yield from full
        if full:
            return
        compressed = elf.section(".gnu_debugdata")
        if compressed is not None:
            yield from _unpack_debugdata(elf.section_data(compressed))
        yield from _debug_file_tables(elf, self._root)


def _tables_of(elf: ElfFile, kind: int) -> Iterator[SymbolTable]:
    versions = next((s for s in elf.sections if s.type == SHT_VERSIONS), None) if kind == SHT_DYNSYM else None
    for section in elf.sections:
        if section.type == kind and section.size:
            yield SymbolTable(
                elf.section_data(section),
                elf.section_data(_linked(elf, section)),
                elf.section_data(versions) if versions else b"",
            )


def _linked(elf: ElfFile, section: Section) -> Section:
    if not section.link < len(elf.sections) or elf.sections[section.link].type == SHT_NOBITS:
        raise FormatError(f"{elf.path}: the symbol table {section.name} has no strings")
    return elf.sections[section.link]


def _unpack_debugdata(packed: bytes) -> Iterator[SymbolTable]:
    import lzma
    import os

    try:
        data = lzma.LZMADecompressor(memlimit=DEBUGDATA_LIMIT).decompress(packed, max_length=DEBUGDATA_LIMIT)
    except lzma.LZMAError as problem:
        raise FormatError(f".gnu_debugdata can't be unpacked: {problem}") from None
    descriptor = os.memfd_create("debugdata", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        with ElfFile(f"/proc/self/fd/{descriptor}") as inner:
            yield from list(_tables_of(inner, SHT_SYMTAB))
    finally:
        os.close(descriptor)


def _debug_file_tables(elf: ElfFile, root: str) -> Iterator[SymbolTable]:
    from kprobes.symbols.debugfile import find_debug_file

    path = find_debug_file(elf, ".symtab", root).path
    if path:
        with ElfFile(path) as debug:
            yield from list(_tables_of(debug, SHT_SYMTAB))


def _rank(symbol: ElfSymbol) -> tuple[bool, int, bool, int]:
    """Return how well a name is known: today's version, exported, without underscores, short."""
    return symbol.old, _RANKS.get(symbol.binding, 3), symbol.name.startswith("_"), len(symbol.name)


def _preferred(found: list[ElfSymbol]) -> list[ElfSymbol]:
    best = min((s.old, not s.typed, _RANKS.get(s.binding, 3) == 2) for s in found)
    chosen = [s for s in found if (s.old, not s.typed, _RANKS.get(s.binding, 3) == 2) == best]
    return list({symbol.address: symbol for symbol in reversed(chosen)}.values())[::-1]
