"""Addresses -> names, for stacks. Names come from files of the target: whoever shows them escapes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kprobes.model.facts import Facts
    from kprobes.symbols.elf_symbols import ElfSymbols
    from kprobes.symbols.kallsyms import Kallsyms
    from kprobes.symbols.maps import Mapping


KERNEL_HALF = 1 << 63  # below it the symbol table has offsets of per-CPU variables


class KernelFrames:
    """Names addresses of one kernel. Answers are kept: the frames of many stacks are few."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._table: Kallsyms | None = None
        self._fresh = False
        self._known: dict[int, str] = {}
        self._printed: dict[int, str] = {}

    def name(self, address: int) -> str:
        """Return `symbol+0x10`, `symbol+0x10 [module]`, or the address itself where it is in no function."""
        if address not in self._known:
            self._known[address] = self._look_up(address)
        return self._known[address]

    def names(self, addresses: Iterable[int]) -> list[str]:
        """Return the names of *addresses*."""
        return [self.name(address) for address in addresses]

    def symbol(self, address: int) -> str:
        """Return the function or variable at *address*, with the offset into it unless that is 0."""
        name = self.name(address)
        nameless = name == f"{address:#x}" and address >= KERNEL_HALF
        found = self._table.symbol_at(address, data=True) if nameless and self._table is not None else None
        if found is not None:
            name = f"{found[0].name}+{found[1]:#x}" + (f" [{found[0].module}]" if found[0].module else "")
        return name.replace("+0x0", "", 1) if name.partition(" ")[0].endswith("+0x0") else name

    def printed(self, address: int) -> str:
        """Return *address* as the kernel prints it: `symbol+0x4/0x370`, `symbol+0x4/0x370 [module]`, or itself."""
        if address not in self._printed:
            self._printed[address] = self._loaded().printed(address)
        return self._printed[address]

    def _loaded(self) -> Kallsyms:
        from kprobes.symbols.kallsyms import Kallsyms

        if self._table is None:
            self._table = Kallsyms.load(self._path)
        return self._table

    def _look_up(self, address: int) -> str:
        from kprobes.symbols.kallsyms import Kallsyms

        self._table = self._loaded()
        found = self._table.symbol_at(address)
        if found is None and not self._fresh:
            # Programs and trampolines come and go while the copy on disk stays.
            self._table, self._fresh = Kallsyms.load(self._path, cached=False), True
            found = self._table.symbol_at(address)
        if found is None:
            return f"{address:#x}"
        symbol, offset = found
        return f"{symbol.name}+{offset:#x}" + (f" [{symbol.module}]" if symbol.module else "")


def name_kernel_frames(addresses: Iterable[int], facts: Facts) -> list[str]:
    """Return the names of kernel *addresses*, as `symbol+0x10`; for many stacks keep a `KernelFrames`."""
    return KernelFrames(facts.kallsyms()).names(addresses)


class UserFrames:
    """Names addresses of the process *pid*, from what it has mapped now. A context manager: files stay open in it.

    What is mapped is read when first needed and again where an address is in nothing known: libraries come later. Once
    the process is gone, what was known stays.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._mappings: Sequence[Mapping] = ()
        self._starts: list[int] = []
        self._symbols: dict[str, tuple[ElfSymbols, int] | None] = {}
        self._known: dict[int, str] = {}
        self._compiled: PerfMap | None = None

    def __enter__(self) -> UserFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; idempotent."""
        for found in self._symbols.values():
            if found is not None:
                found[0].elf.close()
        self._symbols.clear()

    def remember(self) -> None:
        """Note what is mapped now, and open its files: they have no other name once the process is gone."""
        from kprobes.errors import TargetError
        from kprobes.symbols.maps import load_maps

        try:
            mappings = load_maps(self.pid)
        except TargetError:
            return
        if len(mappings) != len(self._mappings):
            self._mappings = mappings
            self._starts = [mapping.start for mapping in mappings]
        for mapping in mappings:
            if mapping.is_code:
                self._symbols_of(mapping)

    def name(self, address: int) -> str:
        """Return `symbol+0x10 (libc.so.6)`, `0x1234 (libc.so.6)` where it is in no function, or the address alone."""
        if address not in self._known:
            self._known[address] = self._look_up(address)
        return self._known[address]

    def names(self, addresses: Iterable[int]) -> list[str]:
        """Return the names of *addresses*."""
        return [self.name(address) for address in addresses]

    def symbol(self, address: int) -> str:
        """Return the function at *address*, with the offset into it unless that is 0."""
        name = self.name(address)
        return name.replace("+0x0", "", 1) if name.partition(" ")[0].endswith("+0x0") else name

    def _look_up(self, address: int) -> str:
        mapping = self._mapping_of(address)
        if mapping is None:
            return f"{address:#x}"
        short = mapping.path.rpartition("/")[2] or "anonymous"
        if not mapping.inode:
            return self._compiled_name(address) or f"{address:#x} ({short})"
        symbols = self._symbols_of(mapping)
        if symbols is None:
            return f"{address:#x} ({short})"
        found = symbols[0].symbol_at(address - symbols[1])
        if found is None:
            return f"{address - symbols[1]:#x} ({short})"
        return f"{found[0].name}+{found[1]:#x} ({short})"

    def _mapping_of(self, address: int) -> Mapping | None:
        from bisect import bisect_right

        from kprobes.errors import TargetError
        from kprobes.symbols.maps import load_maps

        for fresh in (False, True):
            if fresh:
                try:
                    self._mappings = load_maps(self.pid)
                except TargetError:
                    return None
                self._starts = [mapping.start for mapping in self._mappings]
            at = bisect_right(self._starts, address) - 1
            if at >= 0 and address < self._mappings[at].end:
                return self._mappings[at]
        return None

    def _symbols_of(self, mapping: Mapping) -> tuple[ElfSymbols, int] | None:
        if mapping.path not in self._symbols:
            self._symbols[mapping.path] = self._open(mapping)
        return self._symbols[mapping.path]

    def _open(self, mapping: Mapping) -> tuple[ElfSymbols, int] | None:
        from kprobes.errors import FormatError
        from kprobes.symbols.elf import ElfFile
        from kprobes.symbols.elf_symbols import ElfSymbols
        from kprobes.symbols.maps import file_of, load_bias

        try:
            elf = ElfFile(file_of(self.pid, mapping))
        except FormatError:
            return None
        bias = load_bias(elf, [m for m in self._mappings if m.path == mapping.path])
        if bias is None:
            elf.close()
            return None
        return ElfSymbols(elf, f"/proc/{self.pid}/root"), bias

    def _compiled_name(self, address: int) -> str:
        if self._compiled is None:
            self._compiled = PerfMap.load(self.pid)
        return self._compiled.name(address)


class PerfMap:
    """Functions that a just-in-time compiler told of in /tmp/perf-PID.map: lines `START SIZE NAME`, in hex."""

    SIZE_LIMIT = 64 << 20

    def __init__(self, text: bytes) -> None:
        import re

        lines = re.findall(rb"^([0-9a-f]{1,16}) ([0-9a-f]{1,8}) ([^\n]{1,512})$", text, re.MULTILINE)
        # Of a range that was compiled twice, the later line holds.
        found = {int(start, 16): (int(size, 16), name) for start, size, name in lines}
        self._functions = found
        self._starts = sorted(found)

    @classmethod
    def load(cls, pid: int) -> PerfMap:
        """Read the map of the process *pid*; an empty one where it has none."""
        from kprobes.errors import FormatError
        from kprobes.symbols.source import read_source

        try:
            return cls(read_source(f"/proc/{pid}/root/tmp/perf-{pid}.map", cls.SIZE_LIMIT))
        except FormatError:
            return cls(b"")

    def name(self, address: int) -> str:
        """Return the function at *address*, empty where there is none."""
        from bisect import bisect_right

        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return ""
        size, name = self._functions[self._starts[at]]
        offset = address - self._starts[at]
        return f"{name.decode('utf-8', 'replace')}+{offset:#x} (compiled)" if offset < size else ""


def name_user_frames(addresses: Iterable[int], pid: int) -> list[str]:
    """Return the names of *addresses* in the process *pid*; for many stacks keep a `UserFrames`."""
    with UserFrames(pid) as frames:
        return frames.names(addresses)
