"""The state of lowering one part of a handler to one native function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.arch.x86_64 import registers as x86_64
from kprobes.compiler.back.native.runtime import copy_string
from kprobes.compiler.back.part import Part
from kprobes.model.layout import SITE_COUNTERS
from kprobes.model.plan import LEFT, OMITTED
from kprobes.model.shared import BLOCK_NUMBER, counter_offset, world_layout

if TYPE_CHECKING:
    from kprobes.compiler.back.native.target import NativeTarget
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import Function, Handler, Place
    from kprobes.errors import CompileError


class NativePart(Part):
    """One part on its way to LLVM text. What it has of its own: registers, the thread's block, where to go on.

    `reads` gathers the fields of pt_regs that it looks at; `writes`, `skips` and `omits` tell what it may change.
    """

    def __init__(self, handler: Handler, function: Function, target: NativeTarget, text: FunctionText) -> None:
        super().__init__(handler, function, text)
        self.native = target
        self.context = "%regs"
        self.reads: set[str] = set()
        self.writes = False
        self.skips = False
        self.omits = False
        self.site = "%site"
        self._left = ""

    def learn_site(self) -> None:
        """Find out the site's number; an exit part runs under another one (see `counted_sites`)."""
        if self.is_return:
            self.site = self.text.let(f"sub i64 %site, {self.native.sites}")

    @property
    def is_return(self) -> bool:
        """Tell whether this is the exit part of a pair: its call has been counted at the entry."""
        return self.function.part == "exit" and self.handler.entry is not None

    @property
    def is_after(self) -> bool:
        """Tell whether this part runs behind the probed instruction."""
        return self.native.after and self.function.part == "exit"

    @property
    def is_paired(self) -> bool:
        """Tell whether the handler has both parts."""
        return self.handler.entry is not None and self.handler.exit is not None

    def leave(self) -> None:
        """Note that the program goes on elsewhere than at the probed instruction."""
        self.skips = True
        self._tell(LEFT)

    def omit(self) -> None:
        """Note that the probed instruction is not to run."""
        self.omits = True
        self._tell(OMITTED)

    def _tell(self, bit: int) -> None:
        if not self._left:
            self._left = self.text.variable(64)
        told = self.text.load(64, self._left)
        self.text.store(64, self.text.let(f"or i64 {told}, {bit}"), self._left)

    def end(self) -> None:
        """Return to the detour, and tell it where the program goes on."""
        self.text.give_back(self.text.load(64, self._left) if self._left else "0")

    def copy_string(self, to: str, source: str, size: str) -> str:
        """Copy a string byte by byte."""
        return self.text.let(f"call i64 {copy_string(self.text.module)}(ptr {to}, ptr {source}, i64 {size})")

    def register(self, name: str) -> str:
        """Return a register of the probed code."""
        name = x86_64.ALIASES.get(name, name)
        self.reads.add(name)
        return self.text.load(64, self.text.offset(self.context, x86_64.REGISTERS[name]))

    def set_register(self, name: str, value: str) -> None:
        """Change a register of the probed code."""
        name = x86_64.ALIASES.get(name, name)
        self.writes = True
        self.text.store(64, value, self.text.offset(self.context, x86_64.REGISTERS[name]))

    def world(self, offset: int) -> str:
        """Return the address of something in the world page."""
        self.need(world_layout())
        return self.text.offset(self.map_value("world"), offset)

    def map_value(self, name: str) -> str:
        """Return the address of the map *name*."""
        return self.text.module.external(f"map:{name}")

    def share(self, stride: int) -> str:
        """Return the distance of this block's share, where each takes *stride* bytes."""
        number = self.text.load(64, self.text.offset("%block", BLOCK_NUMBER))
        return self.text.let(f"mul i64 {number}, {stride}")

    def count(self, counter: str, amount: str = "1") -> None:
        """Add to a counter of the site: the block is the thread's alone."""
        self._count(self.site, counter, amount)

    def count_return(self, counter: str) -> None:
        """Add 1 to a counter of the site that stands for the returns."""
        self._count("%site", counter, "1")

    def _count(self, site: str, counter: str, amount: str) -> None:
        at = counter_offset(self.native.counted, 0, SITE_COUNTERS.index(counter))
        pointer = self.text.offset("%block", self.text.let(f"shl i64 {site}, 3"))
        self.add_own(self.text.offset(pointer, at), amount)

    def add_own(self, pointer: str, amount: str) -> None:
        """Add to a u64 that no other handler adds to meanwhile."""
        value = self.text.load(64, pointer)
        self.text.store(64, self.text.let(f"add i64 {value}, {amount}"), pointer)

    def unsupported(self, what: str, place: Place, hint: str) -> CompileError:
        """Return the error that *what* can't be done inside of a process."""
        hint = hint or "the kernel's uprobes can: add --engine uprobe"
        return self.error(f"{what} can't be had inside of a process", place, hint)
