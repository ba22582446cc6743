"""The kernel's symbol table as /proc/kallsyms tells it: lines `ADDRESS KIND NAME[<tab>[MODULE]]`.

A table has 100,000 to 250,000 lines, and one probe needs one of them. So the text stays bytes and is searched. To turn
an address into a name, the kernel's own lines are bisected as they are, since they stand in ascending order; those of
modules don't and get an index. Reading the file costs the kernel 30 to 70 ms, which a copy on disk saves; it holds for
this boot and this set of modules. (Symbols of BPF programs and ftrace trampolines come and go with no module:
`Kallsyms.load(..., cached=False)` sees those.)
"""

from __future__ import annotations

import re
from functools import cached_property

from kprobes.errors import AmbiguousSymbolError, FormatError, SymbolNotFoundError
from kprobes.frozen import dataclass
from kprobes.symbols.cache import read_cached, write_cached
from kprobes.symbols.source import read_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Sequence

PROC = "/proc/kallsyms"
SIZE_LIMIT = 256 << 20
# Text symbols: global, local, weak. `i` is an indirect function, never seen in a kernel.
TEXT_KINDS = frozenset("tTwW")
# A symbol with no successor in its table ends here at the latest.
LAST_SIZE = 4096

_LINE = re.compile(rb"([0-9a-fA-F]+) ([!-~]) (\S+)(?:\t\[(\S+?)\])?[ \t]*\Z")


@dataclass(frozen=True, slots=True)
class KernelSymbol:
    """One line: *address* (0 where hidden), *kind* as `nm` has it (`T`, `t`, `D` ...), *module* (empty: vmlinux)."""

    name: str
    address: int
    kind: str
    module: str = ""

    @property
    def is_text(self) -> bool:
        """Return whether it is marked as code; `Kallsyms.is_code` knows better."""
        return self.kind in TEXT_KINDS

    @property
    def spelling(self) -> str:
        """Return a spelling that means this symbol alone: `module:name`, or the address in the kernel proper."""
        return f"{self.module}:{self.name}" if self.module else f"{self.address:#x}"


class Kallsyms:
    """A symbol table. Give the *text* itself, or use `Kallsyms.load`.

    Raises:
        FormatError: the text isn't a kallsyms table.
    """

    def __init__(self, text: bytes | str) -> None:
        data = text.encode() if isinstance(text, str) else text
        # Each line is found with the newline before it and the one after it.
        self._data = data if data.endswith(b"\n") else data + b"\n"
        self._tail: int | None = None
        self._index: tuple[array[int], array[int]] | None = None
        first = self._data[: self._data.find(b"\n")]
        if not _LINE.match(first):
            raise FormatError("the symbol table is empty or malformed", hint="is this a copy of /proc/kallsyms?")

    @classmethod
    def load(cls, path: str = PROC, *, cached: bool = True) -> Kallsyms:
        """Read the table in the file *path*; that of this machine from the copy on disk, unless *cached* is false.

        Raises:
            FormatError: the file can't be read or isn't a kallsyms table.
        """
        live = path == PROC and cached
        name = _cache_name() if live else ""
        if name:
            copy = read_cached(name)
            if copy is not None and copy.endswith(b"\n"):
                return cls(copy)
        table = cls(read_source(path, SIZE_LIMIT))
        if name and not table.hidden:
            write_cached(name, (table._data,))
        return table

    @property
    def hidden(self) -> bool:
        """Return whether addresses are hidden: all zero for want of CAP_SYSLOG, or by `kptr_restrict`."""
        return re.search(rb"^0*[1-9a-fA-F]", self._data, re.MULTILINE) is None

    def is_code(self, symbol: KernelSymbol) -> bool:
        """Return whether *symbol* names code.

        Since Linux 7.0 the table of the kernel proper calls data `T` too, so the address must lie in a text section.
        """
        if not symbol.is_text or symbol.module or not symbol.address:
            return symbol.is_text
        end = self.text_end
        return symbol.address < end or end == 0 or self.init_text[0] <= symbol.address < self.init_text[1]

    @cached_property
    def init_text(self) -> tuple[int, int]:
        """Return the addresses (from, to below) of code that is freed once the kernel has booted; zeros if unknown."""
        first, last = self._last_named("_sinittext"), self._last_named("_einittext")
        return (first.address, last.address) if first and last else (0, 0)

    @cached_property
    def text_end(self) -> int:
        """Return where the code of the kernel proper ends; 0 if unknown."""
        at = self._data.find(b" _etext\n")
        return self._address_at(self._data.rfind(b"\n", 0, at) + 1) if at >= 0 else 0

    def lookup(self, name: str, module: str | None = None) -> list[KernelSymbol]:
        """Return every symbol called exactly *name*, in any module; or in *module* only (empty: vmlinux).

        *name* may be `module:name`.
        """
        if ":" in name:
            module, _, name = name.partition(":")
        found = []
        needle = b" " + name.encode("utf-8", "surrogateescape")
        for line in self._lines_with(needle):
            symbol = parse_line(line)
            if symbol.name == name and (module is None or symbol.module == _module_name(module)):
                found.append(symbol)
        return found

    def one(self, name: str) -> KernelSymbol:
        """Return the code symbol *name* (`name` or `module:name`).

        Of several names for one address any will do; several addresses are refused.

        Raises:
            SymbolNotFoundError: none; with the nearest names.
            AmbiguousSymbolError: several; with spellings that tell them apart.
        """
        return self.choose(name, self.lookup(name))

    def choose(self, name: str, found: list[KernelSymbol]) -> KernelSymbol:
        """Return the one that *name* means of the symbols *found* for it; raises as `one`."""
        code = [s for s in found if self.is_code(s)] or found
        if not code:
            raise SymbolNotFoundError(name, nearest=self.nearest(name), where="the kernel")
        if len(code) > 1 and (code[0].address == 0 or len({s.address for s in code}) > 1):
            raise AmbiguousSymbolError(name, tuple(_spellings(code)))
        return code[0]

    def _last_named(self, name: str) -> KernelSymbol | None:
        """Return the last symbol of the kernel proper called *name*: quick for what stands near the end."""
        end = self._modules_start
        at = self._data.rfind(b" " + name.encode() + b"\n", 0, end)
        return parse_line(self._line_at(self._data.rfind(b"\n", 0, at) + 1)) if at >= 0 else None

    def glob(self, pattern: str) -> list[KernelSymbol]:
        """Return the symbols marked as code that match *pattern*, in the order of the table.

        `*`, `?` and `[...]` are as in a shell; `ext4:*` means those of a module, `*:name` any module's; no prefix means
        the kernel proper and all modules.
        """
        found = self.matching(pattern)
        return [KernelSymbol(name, int(address, 16), kind, module) for address, kind, name, module in found]

    def matching(self, pattern: str, but: Sequence[str] = (), *, code: bool = False) -> list[tuple[str, str, str, str]]:
        """Return what `glob` does as (address in hexadecimal, kind, name, module), without names that begin with one of
        *but*: plain texts, since there may be 100,000. *code*: the kernel proper's data may be missing."""
        module, colon, name = pattern.rpartition(":")
        tail = rb"\t\[(" + _glob_regex(_module_name(module)) + rb")\]" if colon else rb"(?:\t\[(\S+)\])?"
        left_out = rb"(?!" + b"|".join(re.escape(one.encode()) for one in but) + rb")" if but else b""
        line = rb"^([0-9a-f]{1,16}+) ([tTwW]) " + left_out + rb"(" + _glob_regex(name) + rb")" + tail + rb"[ \t]*+$"
        head = re.split(r"[*?\[]", name, maxsplit=1)[0]
        data = b"\n".join(self._lines_with(b" " + head.encode())) if head else self._code() if code else self._data
        text = data.decode("utf-8", "surrogateescape")
        return re.findall(line.decode("utf-8", "surrogateescape"), text, re.MULTILINE | re.ASCII)

    def _code(self) -> bytes:
        """Return the lines without those that tell of the kernel proper's data, a third of them in new kernels."""
        (low, high), end = self.init_text, self.text_end
        if not 0 < end <= low:
            return self._data
        begin, init, after = (self._bisect(address - 1) for address in (end, low, high))
        return self._data[:begin] + self._data[init:after] + self._data[self._modules_start :]

    def nearest(self, name: str, count: int = 3) -> tuple[str, ...]:
        """Return names of functions that resemble *name*."""
        from kprobes.symbols.nearest import nearest_names

        module, colon, plain = name.rpartition(":")
        names = re.findall(rb"^[0-9a-f]+ [tTwW] ([^\s.]+)\s", self._data, re.MULTILINE)
        close = nearest_names(plain, (n.decode("utf-8", "replace") for n in names), count)
        if not colon:
            return close
        return tuple(f"{module}:{n}" if self.lookup(n, module) else n for n in close)

    def variants(self, name: str) -> list[KernelSymbol]:
        """Return the copies that the compiler made of *name*: `name.isra.0`, `name.constprop.0`, `name.cold` ..."""
        needle = b" " + name.encode() + b"."
        found = (parse_line(line) for line in self._lines_with(needle))
        return [s for s in found if s.name.startswith(f"{name}.") and self.is_code(s)]

    def kallsyms_lookup_name(self, name: str) -> int:
        """Return the address of *name* (`name` or `module:name`, data too), 0 where addresses are hidden.

        Raises:
            SymbolNotFoundError, AmbiguousSymbolError: as `one`.
        """
        return self.one(name).address

    def symbol_at(self, address: int, *, data: bool = False) -> tuple[KernelSymbol, int] | None:
        """Return the code symbol that *address* lies in, and the offset into it; None where it lies in none.

        With *data* it may be a variable as well.
        """
        start = self._position_of(address)
        if start is None:
            return None
        symbol = self._code_at(start) or (parse_line(self._line_at(start)) if data else None)
        if symbol is None:
            return None
        offset = address - symbol.address
        return (symbol, offset) if offset < self.size_of(symbol) else None

    def printed(self, address: int) -> str:
        """Return *address* as the kernel prints one (`%pS`): `symbol+0x4/0x370 [module]`, or the address where it has
        no name. Of symbols at one address the first counts, whatever it is.
        """
        start = self._position_of(address) if address >= self._first else None
        if start is None:
            return f"{address:#x}"
        symbol = parse_line(self._line_at(start))
        size, offset = self.size_of(symbol), address - symbol.address
        if offset >= size:
            return f"{address:#x}"
        return f"{symbol.name}+{offset:#x}/{size:#x}" + (f" [{symbol.module}]" if symbol.module else "")

    @cached_property
    def _first(self) -> int:
        """Where the kernel itself begins: what the table has before are offsets of per-CPU variables."""
        found = self._last_named("_stext") or self._last_named("_text")
        return found.address if found else 0

    def aliases(self, symbol: KernelSymbol) -> list[KernelSymbol]:
        """Return the other code symbols at the address of *symbol*, which is one of the kernel's own; else none."""
        if symbol.module or self.hidden:
            return []
        found, end = [], self._bisect(symbol.address)
        while end:
            start = self._data.rfind(b"\n", 0, end - 1) + 1
            if self._address_at(start) != symbol.address:
                break
            found.append(parse_line(self._line_at(start)))
            end = start
        return [one for one in reversed(found) if one.is_text and one.name != symbol.name]

    def size_of(self, symbol: KernelSymbol) -> int:
        """Return the distance from *symbol* to the next one; at most 4096 where that belongs to another module."""
        following = self._following(symbol)
        size = following.address - symbol.address if following else LAST_SIZE
        return min(size, LAST_SIZE) if following is None or following.module != symbol.module else size

    def symbols(self) -> Iterator[KernelSymbol]:
        """Return all symbols, one after the other."""
        return (parse_line(line) for line in self._data.split(b"\n") if line)

    def modules(self) -> set[str]:
        """Return the names of the modules that have symbols here."""
        return {m.decode("utf-8", "replace") for m in re.findall(rb"\t\[(\S+)\]$", self._data, re.MULTILINE)}

    def _lines_with(self, needle: bytes) -> Iterator[bytes]:
        data = self._data
        at = data.find(needle)
        while at >= 0:
            yield self._line_at(data.rfind(b"\n", 0, at) + 1)
            at = data.find(needle, at + 1)

    def _line_at(self, start: int) -> bytes:
        return self._data[start : self._data.find(b"\n", start)]

    @property
    def _modules_start(self) -> int:
        """Where the lines of modules begin: before it addresses ascend, behind it they don't."""
        if self._tail is None:
            low, high = 0, len(self._data)
            while low < high:
                middle = self._data.rfind(b"\n", low, (low + high) // 2) + 1 or low
                end = self._data.find(b"\n", middle)
                if self._data.find(b"\t[", middle, end) < 0:
                    low = end + 1
                else:
                    high = middle
            self._tail = low
        return self._tail

    def _position_of(self, address: int) -> int | None:
        """Return where the last line at or below *address* begins, the first of them for that address.

        Modules lie above the kernel proper on x86-64, below it on arm64.
        """
        from bisect import bisect_left, bisect_right

        addresses, positions = self._module_index()
        at = bisect_right(addresses, address) - 1
        after = self._bisect(address)
        own = self._address_at(self._data.rfind(b"\n", 0, after - 1) + 1) if after else -1
        if at >= 0 and addresses[at] > own:
            return positions[bisect_left(addresses, addresses[at])]
        return self._bisect(own - 1) if after else None

    def _following(self, symbol: KernelSymbol) -> KernelSymbol | None:
        """Return the symbol that comes next in memory, at another address."""
        from bisect import bisect_right

        addresses, positions = self._module_index()
        if not symbol.module and (after := self._bisect(symbol.address)) < self._modules_start:
            return parse_line(self._line_at(after))
        at = bisect_right(addresses, symbol.address)
        return parse_line(self._line_at(positions[at])) if at < len(addresses) else None

    def _code_at(self, start: int) -> KernelSymbol | None:
        """Return the first code symbol of those that share the address of the line at *start*."""
        symbol = first = parse_line(self._line_at(start))
        while not symbol.is_text:
            start = self._data.find(b"\n", start) + 1
            if start >= len(self._data):
                return None
            symbol = parse_line(self._line_at(start))
            if symbol.address != first.address:
                return None
        return symbol

    def _bisect(self, address: int) -> int:
        """Return where the kernel's own lines above *address* begin."""
        low, high = 0, self._modules_start
        while low < high:
            middle = self._data.rfind(b"\n", low, (low + high) // 2) + 1 or low
            if self._address_at(middle) <= address:
                low = self._data.find(b"\n", middle) + 1
            else:
                high = middle
        return low

    def _address_at(self, start: int) -> int:
        try:
            return int(self._data[start : self._data.find(b" ", start, start + 17)], 16)
        except ValueError:
            raise FormatError(f"malformed line in the symbol table: {self._line_at(start)[:80]!r}") from None

    def _module_index(self) -> tuple[array[int], array[int]]:
        """Return the addresses of all symbols of modules in ascending order, and where their lines begin."""
        if self._index is None:
            from array import array

            lines = re.compile(rb"^([0-9a-f]{1,16}) ", re.MULTILINE).finditer(self._data, self._modules_start)
            pairs = sorted((int(m[1], 16), m.start()) for m in lines)
            self._index = array("Q", [a for a, _ in pairs]), array("L", [p for _, p in pairs])
        return self._index


def parse_line(line: bytes) -> KernelSymbol:
    """Return one line as a symbol.

    Raises:
        FormatError: it isn't a line of kallsyms.
    """
    match = _LINE.match(line)
    if match is None or len(match[1]) > 16:
        raise FormatError(f"malformed line in the symbol table: {line[:80]!r}")
    name, module = match[3].decode("utf-8", "surrogateescape"), match[4] or b""
    return KernelSymbol(name, int(match[1], 16), match[2].decode(), module.decode("utf-8", "surrogateescape"))


def _spellings(symbols: list[KernelSymbol]) -> Iterator[str]:
    for symbol in symbols:
        twins = [s for s in symbols if s.module == symbol.module]
        yield (
            symbol.spelling
            if len(twins) == 1
            else f"{symbol.address:#x}" + (f" [{symbol.module}]" * bool(symbol.module))
        )


def _module_name(module: str) -> str:
    """Return *module* as the kernel spells it: `vmlinux` and `kernel` are the kernel proper, `-` is `_`."""
    return "" if module in ("vmlinux", "kernel") else module.replace("-", "_")


def _glob_regex(pattern: str) -> bytes:
    """Return *pattern* as a regular expression that matches no white space and never backtracks over a star."""
    head, *rest = re.sub(r"\*+", "*", pattern).split("*")
    if not rest:
        return _literal(head)
    middle = b"".join(rb"(?>\S*?" + _literal(part) + rb")" for part in rest[:-1])
    return _literal(head) + middle + rb"\S*" + _literal(rest[-1])


def _literal(part: str) -> bytes:
    """Return a piece of a pattern without stars as a regular expression."""
    pieces = re.split(r"(\?|\[!?\]?[^\]]*\])", part)
    return b"".join(
        _one_of(p) if p == "?" or (p.startswith("[") and len(p) > 2) else re.escape(p.encode()) for p in pieces
    )


def _one_of(piece: str) -> bytes:
    if piece == "?":
        return rb"\S"
    inside = piece[1:-1].replace("\\", r"\\")
    if inside.startswith("!"):
        return b"[^\\s" + inside[1:].replace("]", r"\]").encode() + b"]"
    return b"[" + inside.replace("]", r"\]").replace("^", r"\^").encode() + b"]"


def _cache_name() -> str:
    """Return the name of this boot's copy, which the set of modules is part of; empty where /proc doesn't tell."""
    from zlib import crc32

    try:
        boot = read_source("/proc/sys/kernel/random/boot_id", 4096).decode().strip()
    except FormatError:
        return ""
    try:
        modules = read_source("/proc/modules", SIZE_LIMIT)
    except FormatError:  # a kernel without modules
        modules = b""
    # Of a line `name size refs users state address` all but refs and users tell one load from another.
    loads = re.findall(rb"^(\S+ \d+) \d+ \S+ (\S+ 0x[0-9a-f]+)", modules, re.MULTILINE)
    return f"kallsyms-{boot}-{crc32(b''.join(a + b for a, b in loads)):08x}"
