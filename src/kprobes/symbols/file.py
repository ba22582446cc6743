"""Places in programs and shared objects -> file offsets, which is what a uprobe takes.

Spellings: `libc:malloc`, `malloc` (in the program itself), `malloc+0x10`, `/path/to/file:name`, `libc:0x620` (a file
offset), `mytool@parse.c:42` (a source line), and globs on both sides (`libssl*:SSL_*`).
"""

from __future__ import annotations

import os
import re

from kprobes.errors import AmbiguousSymbolError, FormatError, SymbolNotFoundError, UnprobeableError, UsageError
from kprobes.frozen import dataclass
from kprobes.model.plan import Site
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbol, ElfSymbols
from kprobes.symbols.nearest import nearest_names
from kprobes.symbols.objects import GLOB, MachineObjects, Object, ProcessObjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.symbols.objects import Objects

PLACE = re.compile(
    r"(?:(?P<object>[^\x00-\x20]*?[^\x00-\x20:]):(?!:))?(?P<name>[^\x00-\x20:+]+(?:::[^\x00-\x20:+]+)*)"
    r"(?:\+(?P<offset>0x[0-9a-fA-F]+|\d+))?\Z"
)
LINE = re.compile(r"(?P<object>[^\x00-\x20]*)@(?P<file>[^\x00-\x20:@]+):(?P<line>[1-9]\d{0,8})\Z")
OFFSET = re.compile(r"0x[0-9a-fA-F]{1,16}\Z")


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A site in a file (*site.address* is the file offset of the symbol, *site.offset* counts from it).

    *address* is the symbol's address as the file has it, before it is loaded elsewhere; *size* that of the function in
    bytes, 0 where unknown. *object* tells how the file is mapped, where a process was asked.
    """

    site: Site
    address: int
    size: int
    object: Object


@dataclass(frozen=True, slots=True)
class FileResolution:
    """What a place means: its sites, and how many functions of a glob were left out, by reason. *sources* are files
    that the answer depends on besides those of the sites."""

    found: tuple[ResolvedFile, ...]
    skipped: tuple[tuple[str, int], ...] = ()
    sources: tuple[str, ...] = ()


def resolve_file(text: str, objects: Objects | None = None) -> FileResolution:
    """Return the sites of the place *text*; names of objects are looked up in *objects* (by default this machine).

    Raises:
        UsageError: the spelling is off, or names no object.
        SymbolNotFoundError, AmbiguousSymbolError: with what comes near, or what tells them apart.
        UnprobeableError: a single place that holds no code, is an IFUNC, or was only inlined.
        FormatError: a file is malformed.
    """
    objects = objects or MachineObjects()
    try:
        return _resolve(text, objects)
    except SymbolNotFoundError as missing:
        if missing.thing == "function":
            _refuse_inlined(text, objects)
        raise


def _resolve(text: str, objects: Objects) -> FileResolution:
    line = LINE.match(text)
    if line is not None:
        from kprobes.symbols.source_lines import resolve_line

        return resolve_line(text, line["file"], int(line["line"]), _objects_of(text, line["object"], objects))
    match = PLACE.match(text)
    if match is None:
        raise UsageError(
            f"{text!r} is no place in a program", hint="write object:function, object:function+0x10 or object:0x620"
        )
    files = _objects_of(text, match["object"] or "", objects)
    offset = int(match["offset"] or "0", 16 if (match["offset"] or "").startswith("0x") else 10)
    if GLOB.search(match["name"]) or len(files) > 1:
        if offset:
            raise UsageError(f"{text!r} gives an offset to a glob", hint="name one function, or leave the offset out")
        return _resolve_glob(text, match["name"], files, objects)
    return FileResolution((_resolve_one(match["name"], offset, files[0], objects),))


def _objects_of(text: str, name: str, objects: Objects) -> list[Object]:
    """Return the objects that *name* means, which is empty for the program itself."""
    if name:
        return objects.find(name)
    main = objects.main()
    if main is None:
        plain = text.removeprefix("@")
        sign = "@" if plain != text else ":"
        raise UsageError(
            f"{text!r} names no object", hint=f"write `libc{sign}{plain}`, `./program{sign}{plain}`, or add -p PID"
        )
    return [main]


def _refuse_inlined(text: str, objects: Objects) -> None:
    """Do nothing where *text* is no function that was only inlined.

    Raises:
        UnprobeableError: it is one.
    """
    match = PLACE.match(text)
    if match is None or GLOB.search(match["name"]) or LINE.match(text):
        return
    from kprobes.symbols.source_lines import refuse_inlined

    for one in _objects_of(text, match["object"] or "", objects):
        refuse_inlined(match["name"], one)


def resolve_in_process(text: str, pid: int) -> FileResolution:
    """Return the sites of the place *text* in what the process *pid* has mapped; see `resolve_anywhere`."""
    return resolve_anywhere(text, ProcessObjects(pid))


def resolve_anywhere(text: str, objects: Objects) -> FileResolution:
    """Return the sites of the place *text*; a plain name that the program lacks is looked for in its libraries.

    Raises:
        What `resolve_file` does.
    """
    try:
        return _resolve(text, objects)
    except SymbolNotFoundError as missing:
        match, main = PLACE.match(text), objects.main()
        if main is None or match is None or match["object"]:
            if missing.thing == "function":
                _refuse_inlined(text, objects)
            raise
        near = list(missing.nearest)
        for one in objects.all():
            if one.path == main.path:
                continue
            try:
                return _resolve(f"{one.path}:{text}", objects)
            except SymbolNotFoundError as other:
                near += other.nearest
            except FormatError:  # code that a program made: mapped from a file, and no ELF
                continue
        _refuse_inlined(text, objects)
        best = nearest_names(match["name"], near)
        raise SymbolNotFoundError(text, nearest=best, where=f"{main.name} and its libraries") from None


def _resolve_one(name: str, offset: int, where: Object, objects: Objects) -> ResolvedFile:
    with ElfFile(where.path) as elf:
        if OFFSET.match(name):
            return _at_offset(elf, int(name, 16) + offset, where)
        symbols = ElfSymbols(elf, where.root)
        symbol = _choose(name, symbols.lookup(name), symbols, where)
        if symbol.ifunc:
            chosen = _chosen(symbols, symbol, where, objects)
            if chosen is None:
                raise UnprobeableError(
                    f"{where.name}:{name}",
                    "which function it is, is chosen when the program starts (IFUNC)",
                    hint=_implementations(symbols, name),
                )
            symbol = chosen
        size = symbol.size
        if offset and offset >= (size or symbols.size_of(symbol)):
            raise UnprobeableError(f"{name}+{offset:#x}", f"{name} has only {symbols.size_of(symbol):#x} bytes")
        return _resolved(elf, symbol, offset, where)


def _choose(name: str, found: list[ElfSymbol], symbols: ElfSymbols, where: Object) -> ElfSymbol:
    if not found:
        near = symbols.nearest(name)
        stripped = (
            "" if near or symbols.functions else f"{where.name} is stripped: give a file offset, {where.name}:0x620"
        )
        raise SymbolNotFoundError(name, nearest=near, where=where.name, hint=stripped)
    if len(found) > 1:
        by_name = {symbol.name for symbol in found}
        told_apart = len(by_name) == len(found)  # C++ overloads are, by their parameters
        spellings = (
            f"{where.name}:{symbol.name if told_apart else hex(symbols.elf.offset_of(symbol.address) or 0)}"
            for symbol in found
        )
        raise AmbiguousSymbolError(name, tuple(spellings))
    return found[0]


def _chosen(symbols: ElfSymbols, symbol: ElfSymbol, where: Object, objects: Objects) -> ElfSymbol | None:
    """Return what the IFUNC *symbol* stands for: in the process that was asked, else in this one.

    The choice follows from file and CPU, so that of this process holds for others of this machine.
    """
    from kprobes.symbols.ifunc import chosen_function

    process = objects if isinstance(objects, ProcessObjects) else ProcessObjects(os.getpid())
    mapped = where if where.mappings else process.with_file(where.path)
    address = chosen_function(process.pid, mapped, symbol.address, process.all(), symbol.name) if mapped else None
    if address is None:
        return None
    named = symbols.symbol_at(address)
    if named is None or named[1]:
        return ElfSymbol(symbol.name, address, 0, "local")
    return named[0]


def _implementations(symbols: ElfSymbols, name: str) -> str:
    variant = re.compile(rf"_*{re.escape(name)}_(?!chk)[a-z]").match
    near = [symbol.name for symbol in symbols.functions if not symbol.ifunc and variant(symbol.name)]
    if near:
        return f"probe what it chooses from: {', '.join(near[:6])}"
    return "install the debug symbols of this library to name its variants"


def _at_offset(elf: ElfFile, offset: int, where: Object) -> ResolvedFile:
    name = f"{where.name}:{offset:#x}"
    address = elf.address_of(offset)
    if address is None or not elf.is_code(address):
        raise UnprobeableError(name, "that file offset holds no code")
    return ResolvedFile(Site(0, name, address=offset, path=where.path), address, 0, where)


def _resolved(elf: ElfFile, symbol: ElfSymbol, offset: int, where: Object) -> ResolvedFile:
    place = elf.offset_of(symbol.address)
    if place is None:
        raise FormatError(f"{where.path}: the symbol {symbol.name} lies in no segment")
    name = f"{where.name}:{symbol.name}" + (f"+{offset:#x}" if offset else "")
    site = Site(0, name, symbol=symbol.name, offset=offset, address=place, path=where.path, size=symbol.size)
    return ResolvedFile(site, symbol.address, symbol.size, where)


def _resolve_glob(text: str, pattern: str, files: list[Object], objects: Objects) -> FileResolution:
    found: dict[tuple[str, int], ResolvedFile] = {}
    left_out = 0
    for where in files:
        with ElfFile(where.path) as elf:
            symbols = ElfSymbols(elf, where.root)
            for symbol in _matching(symbols, pattern):
                chosen = _chosen(symbols, symbol, where, objects) if symbol.ifunc else symbol
                if chosen is None:
                    left_out += 1
                else:
                    found.setdefault((where.path, chosen.address), _resolved(elf, chosen, 0, where))
    skipped = (("chosen when the program starts (IFUNC)", left_out),) if left_out else ()
    if not found:
        reason = (
            f"the {left_out} that match are chosen when the program starts (IFUNC)"
            if left_out
            else "no function matches"
        )
        raise SymbolNotFoundError(text, where=", ".join(one.name for one in files[:4]), hint=reason)
    return FileResolution(tuple(found.values()), skipped)


def _matching(symbols: ElfSymbols, pattern: str) -> Iterator[ElfSymbol]:
    if GLOB.search(pattern):
        yield from symbols.glob(pattern)
    else:
        yield from symbols.lookup(pattern)
