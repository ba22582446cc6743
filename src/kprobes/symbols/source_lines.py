"""Places by source line (`mytool@parse.c:42`), the lines of addresses, and where the compiler inlined a function."""

from __future__ import annotations

from kprobes.errors import AmbiguousSymbolError, FormatError, SymbolNotFoundError, UnprobeableError
from kprobes.frozen import replace
from kprobes.model.plan import Site
from kprobes.symbols.debugfile import find_debug_file
from kprobes.symbols.dwarf.places import find_line, inlined_at, line_at, source_files
from kprobes.symbols.dwarf.program import DebugProgram
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols
from kprobes.symbols.file import FileResolution, ResolvedFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.symbols.objects import Object

SHOWN_COPIES = 8


def resolve_line(text: str, file: str, line: int, objects: Sequence[Object]) -> FileResolution:
    """Return the sites of *line* of the source *file* in *objects*, which the user spelled *text*.

    Raises:
        SymbolNotFoundError: there is no such source file, or nothing tells.
        AmbiguousSymbolError: several source files are called so.
        UnprobeableError: no code was made of the line.
        FormatError: a file is malformed.
    """
    found: list[ResolvedFile] = []
    sources: tuple[str, ...] = ()
    failure: Exception | None = None
    for one in objects:
        try:
            here = _resolve_in(text, file, line, one)
        except (SymbolNotFoundError, UnprobeableError) as error:
            failure = error
            continue
        found += here.found
        sources += here.sources
    if not found and failure is not None:
        raise failure
    return FileResolution(tuple(found), sources=sources)


def _resolve_in(text: str, file: str, line: int, where: Object) -> FileResolution:
    with ElfFile(where.path) as elf:
        debug = find_debug_file(elf, ".debug_info", where.root)
        if not debug.path:
            raise SymbolNotFoundError(
                file,
                where=where.name,
                thing="source file",
                hint=f"{where.name} has no debug information: install its debug package, or build it with -g",
            )
        program = DebugProgram(debug.path)
        meant = find_line(program, file, line, elf.is_code)
        if not meant.is_known:
            from kprobes.symbols.nearest import nearest_names

            near = nearest_names(file.rpartition("/")[2], source_files(program))
            raise SymbolNotFoundError(file, nearest=near, where=where.name, thing="source file")
        if not meant.addresses:
            near_lines = ", ".join(str(one) for one in sorted(meant.near))
            hint = f"lines near it that have code: {near_lines}" if near_lines else "no line of that file has code here"
            raise UnprobeableError(text, "no code was made of that line", hint=hint)
        if len(meant.addresses) > 1:
            raise AmbiguousSymbolError(text, tuple(f"{where.name}@{path}:{line}" for path in sorted(meant.addresses)))
        symbols = ElfSymbols(elf, where.root)
        (addresses,) = meant.addresses.values()
        found = [_site(elf, symbols, address, where) for address in addresses]
    name = f"{where.name}@{file.rpartition('/')[2]}:{line}"
    if len(found) == 1:
        found = [replace(found[0], site=replace(found[0].site, name=name))]
    else:
        found = [replace(one, site=replace(one.site, name=f"{name}({_spot(one.site)})")) for one in found]
    return FileResolution(tuple(found), sources=debug.tried)


def _site(elf: ElfFile, symbols: ElfSymbols, address: int, where: Object) -> ResolvedFile:
    held = symbols.symbol_at(address)
    start = elf.offset_of(held[0].address if held else address)
    if start is None:
        raise FormatError(f"{where.path}: the code at {address:#x} lies in no segment")
    if held is None:
        return ResolvedFile(Site(0, "", address=start, path=where.path), address, 0, where)
    symbol, offset = held
    site = Site(0, "", symbol=symbol.name, offset=offset, address=start, path=where.path, size=symbol.size)
    return ResolvedFile(site, symbol.address, symbol.size, where)


def _spot(site: Site) -> str:
    if not site.symbol:
        return hex(site.address)
    return site.symbol + (f"+{site.offset:#x}" if site.offset else "")


def source_line(one: ResolvedFile) -> str:
    """Return the `file.c:42` that the code of a site came from, empty where nothing tells."""
    with ElfFile(one.site.path) as elf:
        debug = find_debug_file(elf, ".debug_info", one.object.root)
    if not debug.path:
        return ""
    is_entry = bool(one.site.symbol) and not one.site.offset
    found = line_at(DebugProgram(debug.path), one.address + one.site.offset, is_entry=is_entry)
    return f"{found[0]}:{found[1]}" if found else ""


def prototype(one: ResolvedFile) -> str:
    """Return the prototype of the function that a site is the entry of as C writes it, empty where nothing tells."""
    from kprobes.symbols.dwarf.types import ObjectTypes

    with ElfFile(one.site.path) as elf:
        debug = find_debug_file(elf, ".debug_info", one.object.root)
    return ObjectTypes(debug.path).declaration_at(one.address) if debug.path else ""


def inlined_copies(name: str, where: Object) -> list[str]:
    """Return the places (`mytool:main+0x1c`) at which copies of the function *name* begin that were inlined."""
    with ElfFile(where.path) as elf:
        debug = find_debug_file(elf, ".debug_info", where.root)
        if not debug.path:
            return []
        addresses = [one for one in inlined_at(DebugProgram(debug.path), name) if elf.is_code(one)]
        if not addresses:
            return []
        symbols = ElfSymbols(elf, where.root)
        return [f"{where.name}:{_spot(_site(elf, symbols, address, where).site)}" for address in addresses]


def refuse_inlined(name: str, where: Object) -> None:
    """Do nothing where *name* is no function that was only inlined.

    Raises:
        UnprobeableError: it is one; the copies are told.
    """
    try:
        copies = inlined_copies(name, where)
    except FormatError:
        return
    if copies:
        count = "one place" if len(copies) == 1 else f"{len(copies)} places"
        raise UnprobeableError(
            f"{where.name}:{name}",
            f"it has no entry, the compiler inlined it at {count}",
            hint=f"probe where a copy begins: {shown_copies(copies)}",
        )


def shown_copies(copies: Sequence[str]) -> str:
    """Return the first of *copies*, and how many more there are."""
    more = f" and {len(copies) - SHOWN_COPIES} more" if len(copies) > SHOWN_COPIES else ""
    return ", ".join(copies[:SHOWN_COPIES]) + more
