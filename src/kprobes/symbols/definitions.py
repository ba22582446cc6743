"""What the verdict on a probe definition needs of a kernel: its symbols, and what it says of its code.

The names are indexed once (0.3 s for 200,000 symbols), so that files of many definitions are checked fast.
"""

from __future__ import annotations

from bisect import bisect_right
from errno import EILSEQ, EINVAL
from functools import cached_property
from typing import TYPE_CHECKING

from kprobes.symbols.kallsyms import LAST_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.symbols.kallsyms import Kallsyms, KernelSymbol

    Read = Callable[[int, int], bytes]

ENDBR = b"\xf3\x0f\x1e\xfa"
_MADE_UP = frozenset({"bpf", "__builtin__ftrace", "__builtin__kprobes"})  # names beside the tables that probes use


class DefinitionSymbols:
    """The symbols of *table* as `grammar.world.Symbols` asks for them.

    *functions* is the text of available_filter_functions, *blacklist* that of kprobes/blacklist; *read* returns the
    bytes of the kernel's code of *arch* at an address. What isn't given isn't held against a probe, but that data is
    no code.
    """

    def __init__(
        self,
        table: Kallsyms,
        *,
        functions: str | None = None,
        blacklist: str | None = None,
        read: Read | None = None,
        arch: str = "x86_64",
    ) -> None:
        self._arch = arch
        self._table = table
        self._functions = functions
        self._blacklist_text = blacklist
        self._read = read

    def count(self, name: str, module: str | None) -> int:
        """Return how many symbols are called *name*: in vmlinux (empty *module*), in *module*, or in all modules."""
        return sum(self._is_in(one.module, module) for one in self._called(name))

    def has_module(self, module: str) -> bool:
        """Return whether *module* is loaded."""
        return module in self._modules

    def address(self, name: str) -> int:
        """Return the address of the first symbol *name* (also `module:name`), 0 where there is none."""
        module, colon, plain = name.partition(":")
        wanted = module if colon else None
        for one in self._called(plain if colon else name):
            if wanted is None or one.module == wanted:
                return one.address
        return 0

    def offset_at(self, address: int) -> int:
        """Return how far *address* lies in the symbol that holds it, -1 where none does."""
        starts = self._addresses
        at = bisect_right(starts, address) - 1
        low, high = self._bounds
        if at < 0 or not (low <= address < high or (starts[at] >= high and address < starts[at] + LAST_SIZE)):
            return -1
        return address - starts[at]

    def span(self, address: int) -> tuple[int, int] | None:
        """Return where the symbol that holds *address* begins and where the next one does; None where none holds it."""
        offset = self.offset_at(address)
        if offset < 0:
            return None
        following = bisect_right(self._addresses, address)
        start = address - offset
        return start, self._addresses[following] if following < len(self._addresses) else start + LAST_SIZE

    def begins_with_endbr(self, address: int) -> bool:
        """Return whether the function at *address* begins with ENDBR64; no, where its code isn't known."""
        return self._read is not None and self._read(address, 4) == ENDBR

    def is_notrace(self, address: int) -> bool:
        """Return whether *address* lies in a function that ftrace leaves alone; no, where that isn't known."""
        offset = self.offset_at(address)
        if not self._functions or offset < 0:
            return False
        names = [one.name for one in self._lying_at(address - offset)]
        bases = [name.partition(".")[0] for name in names if "." in name]
        return not self._are_traceable([*names, *bases])

    def refusal(self, address: int) -> int:
        """Return the errno with which the kernel refuses a probe at *address*, 0 where nothing is known against it."""
        offset = self.offset_at(address)
        start = address - offset
        here = self._lying_at(start)
        if not here or not self._table.is_code(here[0]) or self._is_blacklisted(address, here):
            return EINVAL
        if self._arch == "aarch64":
            return self._refused_by_arm64(offset, here)
        return self._boundary(start, offset)

    def _refused_by_arm64(self, offset: int, here: Sequence[KernelSymbol]) -> int:
        """Instructions are words, and the second of a function that ftrace can trace is ftrace's, of which kprobes keep
        off there.

        Source: arch_prepare_kprobe() of arch/arm64/kernel/probes/kprobes.c; check_ftrace_location() of
        kernel/kprobes.c, without CONFIG_KPROBES_ON_FTRACE.
        """
        traced = self._traceable is not None and any(one.name in self._traceable for one in here)
        return EINVAL if offset % 4 or (offset == 4 and traced) else 0

    def _boundary(self, start: int, offset: int) -> int:
        if not offset or self._read is None or self._arch != "x86_64":
            return 0
        from kprobes.arch.x86_64.decode import is_boundary

        return 0 if is_boundary(self._read(start, offset + 16), start, start + offset) else EILSEQ

    def _called(self, name: str) -> Sequence[KernelSymbol]:
        return self._by_name.get(name, ())

    def _lying_at(self, address: int) -> Sequence[KernelSymbol]:
        return self._by_address.get(address, ())

    def _are_traceable(self, names: Sequence[str]) -> bool:
        """Return whether ftrace knows one of *names*."""
        return bool(self._traceable.intersection(names))

    @staticmethod
    def _is_in(home: str, module: str | None) -> bool:
        return bool(home) if module is None else home == module

    @cached_property
    def _by_name(self) -> dict[str, list[KernelSymbol]]:
        found: dict[str, list[KernelSymbol]] = {}
        for symbol in self._table.symbols():
            if symbol.module not in _MADE_UP:
                found.setdefault(symbol.name, []).append(symbol)
        return found

    @cached_property
    def _modules(self) -> frozenset[str]:
        return frozenset(one.module for found in self._by_name.values() for one in found if one.module)

    @cached_property
    def _addresses(self) -> list[int]:
        return sorted({one.address for found in self._by_name.values() for one in found})

    @cached_property
    def _bounds(self) -> tuple[int, int]:
        """Return where the kernel's own addresses begin and end. Below them are those of the variables of one CPU."""
        low, high = self.address("_stext"), self.address("_end")
        return low or self._addresses[0], high or self._addresses[-1] + LAST_SIZE

    @cached_property
    def _by_address(self) -> dict[int, list[KernelSymbol]]:
        found: dict[int, list[KernelSymbol]] = {}
        for symbols in self._by_name.values():
            for one in symbols:
                found.setdefault(one.address, []).append(one)
        return found

    @cached_property
    def _traceable(self) -> frozenset[str]:
        return frozenset(line.partition(" ")[0] for line in (self._functions or "").split("\n"))

    @cached_property
    def _blacklist(self) -> list[tuple[int, int]]:
        import re

        spans = re.findall(r"^0x([0-9a-f]+)-0x([0-9a-f]+)", self._blacklist_text or "", re.MULTILINE)
        return sorted((int(low, 16), int(high, 16)) for low, high in spans)

    def _is_blacklisted(self, address: int, here: Sequence[KernelSymbol]) -> bool:
        if any(one.name.startswith(("__pfx_", "__cfi_")) for one in here):
            return True
        at = bisect_right(self._blacklist, (address, 1 << 64)) - 1
        return at >= 0 and self._blacklist[at][0] <= address < self._blacklist[at][1]


class FewSymbols(DefinitionSymbols):
    """The same for a few definitions: nothing is indexed, each name is looked for in the tables' text."""

    def has_module(self, module: str) -> bool:
        """Return whether *module* is loaded."""
        return module not in _MADE_UP and module in self._table.modules()

    def offset_at(self, address: int) -> int:
        """Return how far *address* lies in the symbol that holds it, -1 where none does."""
        found = self._holding(address)
        return -1 if found is None else found[1]

    def _holding(self, address: int) -> tuple[KernelSymbol, int] | None:
        return self._table.symbol_at(address, data=True) if address >= self._first else None

    @cached_property
    def _first(self) -> int:
        """Return where the kernel's own addresses begin."""
        return self.address("_stext")

    def _called(self, name: str) -> Sequence[KernelSymbol]:
        return [one for one in self._table.lookup(name) if one.module not in _MADE_UP] if ":" not in name else []

    def _lying_at(self, address: int) -> Sequence[KernelSymbol]:
        found = self._holding(address)
        if found is None or found[1]:
            return ()
        return [found[0], *self._table.aliases(found[0])]

    def _are_traceable(self, names: Sequence[str]) -> bool:
        text = f"\n{self._functions}\n"
        return any(f"\n{name}\n" in text or f"\n{name} " in text for name in names)


def character_ids(path: str, limit: int = 1024) -> frozenset[int]:
    """Return the numbers below *limit* that the BTF file *path* gives to unsigned characters, also by other names."""
    from kprobes.symbols.btf import Kind, load_btf

    btf = load_btf(path)
    renamed = {Kind.TYPEDEF, Kind.CONST, Kind.VOLATILE, Kind.RESTRICT, Kind.TYPE_TAG}
    found = []
    for number in range(1, min(limit, btf.count)):
        record = btf.record(number)
        while record.kind in renamed and record.value:
            record = btf.record(record.value)
        # the word of an integer: bits, offset, and 1 in its highest byte where it is signed
        if record.kind == Kind.INT and record.words[0] & 0xFF == 8 and not record.words[0] >> 24 & 1:
            found.append(number)
    return frozenset(found)


def code_reader(path: str) -> Read:
    """Return a function that reads the code of the kernel whose unpacked image is the file *path*.

    It reads nothing where that is no ELF file.
    """
    from kprobes.errors import FormatError
    from kprobes.symbols.elf import ElfFile

    try:
        elf = ElfFile(path)
    except FormatError:
        return lambda _address, _size: b""

    def read(address: int, size: int) -> bytes:
        offset = elf.offset_of(address)
        return elf.read(offset, size) if offset is not None else b""

    return read
