"""Addresses -> names, for stacks. Names come from files of the target: whoever shows them escapes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.engines.port import Facts
    from kprobes.symbols.kallsyms import Kallsyms


class KernelFrames:
    """Names addresses of one kernel. Answers are kept: the frames of many stacks are few."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._table: Kallsyms | None = None
        self._fresh = False
        self._known: dict[int, str] = {}

    def name(self, address: int) -> str:
        """Return `symbol+0x10`, `symbol+0x10 [module]`, or the address itself where it is in no function."""
        if address not in self._known:
            self._known[address] = self._look_up(address)
        return self._known[address]

    def names(self, addresses: Iterable[int]) -> list[str]:
        """Return the names of *addresses*."""
        return [self.name(address) for address in addresses]

    def _look_up(self, address: int) -> str:
        from kprobes.symbols.kallsyms import Kallsyms

        if self._table is None:
            self._table = Kallsyms.load(self._path)
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
