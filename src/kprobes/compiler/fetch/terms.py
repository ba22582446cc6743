"""Terms: `%di`, `+8(%si)`, `@jiffies`, `$arg1`, `file->f_pos` become values.

A term that follows pointers has two results: its value, and whether a pointer on the way could not be read. Nothing
branches on that: what is read from a wrong address does no harm, and is made 0 at the end.

Source: Documentation/trace/kprobetrace.rst, uprobetracer.rst, and what the kernels' own events hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.arch.registers import registers
from kprobes.compiler.ir.nodes import BOOL, U64, Convert, IntType, Load, Place, Value
from kprobes.errors import InternalError, UnsupportedError
from kprobes.model.definition import (
    Field,
    FileAddress,
    FilePlace,
    FunctionArgument,
    Immediate,
    Memory,
    Parameter,
    Register,
    ReturnValue,
    Stack,
    StackWord,
    SymbolAddress,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.fetch.place import Surroundings
    from kprobes.compiler.front.build import Builder
    from kprobes.model.definition import Term

_WORD = (1 << 64) - 1
_STACK_BITS = 14  # a kernel stack of 64-bit machines has 16 KiB, and lies at a multiple of that


class Terms:
    """Makes values of the terms of one definition; *build* grows the part of the handler in which they are fetched.

    What only the function's entry knows is asked for by *keep*: (name, what makes it there) -> its value here.
    """

    def __init__(
        self, build: Builder, around: Surroundings, keep: Callable[[str, Callable[[Terms], Value]], Value]
    ) -> None:
        self.build = build
        self.around = around
        self._keep = keep
        self.place = Place(1, 0)
        self._table = registers(around.arch)
        self._registers: dict[str, Value] = {}

    def value(self, term: Term) -> tuple[Value, Value | None]:
        """Return the 64 bits of *term*, and whether it could not be read (u64, 1 or 0; None where nothing can fail).

        Raises:
            UnsupportedError: it depends on types that aren't known.
        """
        if isinstance(term, Memory | Field):
            base, offset, failed = self.address(term)
            return self.load(U64, base, offset, self.space(term), failed)
        return self._plain(term), None

    def address(self, term: Memory | Field) -> tuple[Value, int, Value | None]:
        """Return where *term* lies: a base, the distance from it, and whether a pointer on the way couldn't be read."""
        base, failed = self.value(term.base)
        if isinstance(term, Memory):
            return base, term.offset, failed
        if term.bit_offset < 0:
            raise unknown_types(f"the field {term.path}")
        return base, term.bit_offset // 8, failed

    def load(
        self, kind: IntType, base: Value, offset: int, space: str, failed: Value | None
    ) -> tuple[Value, Value | None]:
        """Read a number of *kind*; *failed* is what went wrong before."""
        to, wrong = self.build.value(kind), self.build.value(BOOL)
        self.build.add(Load(self.place, to, base, offset, space, wrong))
        return to, self.either(failed, wrong)

    def either(self, failed: Value | None, wrong: Value) -> Value:
        """Return whether one of the two is so, as u64."""
        number = self.build.value(U64)
        self.build.add(Convert(self.place, number, wrong))
        return number if failed is None else self.build.binary(self.place, "or", failed, number)

    def cleared(self, value: Value, failed: Value | None) -> Value:
        """Return *value*, or 0 where it *failed*."""
        if failed is None:
            return value
        build, place = self.build, self.place
        mask = build.binary(place, "sub", failed, build.const(place, 1, U64))
        return build.binary(place, "and", value, build.convert(place, mask, value.type))

    def space(self, term: Memory | Field) -> str:
        """Return whose memory *term* means. The kernel's reads take user addresses for what they are on x86."""
        if self.around.user or (isinstance(term, Memory) and term.user):
            return "user"
        return "any"

    def register(self, name: str) -> Value:
        """Return a register of the hit, by the kernel's name or another spelling of it."""
        name = self._table.canonical(name)
        if name not in self._registers:
            found = self.build.context(self.place, "register", name=name)
            if self.around.native and self.build.part == "exit":
                found = self._behind_return(name, found)
            self._registers[name] = found
        return self._registers[name]

    def _behind_return(self, name: str, found: Value) -> Value:
        """Return a register as the instruction that returns will leave it."""
        build, place, table = self.build, self.place, self._table
        if name == table.instruction_pointer:
            return self._word(build.context(place, "register", name=table.stack_pointer), 0)
        if name == table.stack_pointer:
            return build.binary(place, "add", found, build.const(place, table.word_size, U64))
        return found

    def ip(self) -> Value:
        """Return the probed address: at an entry, or kept from there."""
        if self.build.part == "entry" or self.around.returns_tell:
            return self.build.context(self.place, "function")
        return self._keep("func", lambda entry: entry.build.context(entry.place, "function"))

    def returns_to(self) -> Value:
        """Return where the function returns to."""
        if self.around.user or self.around.returns_tell:
            return self.register(self._table.instruction_pointer)
        return self._keep("ret", lambda entry: entry._return_address())

    def _return_address(self) -> Value:
        """Return where the function returns to, at its entry."""
        if self._table.link:
            return self.register(self._table.link)
        return self._word(self.register(self._table.stack_pointer), 0)

    def _plain(self, term: Term) -> Value:
        place, build = self.place, self.build
        if isinstance(term, Register):
            return self.register(term.name)
        if isinstance(term, Stack):
            return self.register(self._table.stack_pointer)
        if isinstance(term, StackWord):
            return self._stack_word(term.index)
        if isinstance(term, ReturnValue):
            return build.context(place, "return")
        if isinstance(term, FunctionArgument | Parameter):
            return self._argument(term)
        if isinstance(term, Immediate):
            return build.const(place, term.value, U64)
        if isinstance(term, SymbolAddress):
            return build.const(place, self.around.address_of(term.name) + term.offset, U64)
        if isinstance(term, FileAddress):
            return self._in_file(term.offset)
        raise InternalError(f"{term!r} has no value")

    def _argument(self, term: FunctionArgument | Parameter) -> Value:
        index = term.index
        if index < 0:
            raise unknown_types(f"the parameter {getattr(term, 'name', '')}")
        if self.build.part == "entry":
            return self._entry_argument(index)
        return self._keep(f"arg{index + 1}", lambda entry: entry._entry_argument(index))

    def _entry_argument(self, index: int) -> Value:
        inside = self._table.kernel_arguments
        if index < len(inside):
            return self.register(inside[index])
        if self._table.link:  # arm64's kernel looks no further than the registers
            return self.build.const(self.place, 0, U64)
        return self._stack_word(index - len(inside) + 1)

    def _stack_word(self, index: int) -> Value:
        """Return a word of the stack; 0 where the kernel's stack has no such word."""
        build, place = self.build, self.place
        pointer = self.register(self._table.stack_pointer)
        word = self._word(pointer, 8 * index)
        if self.around.user:
            return word
        distance = build.const(place, 8 * index, U64)
        differing = build.binary(place, "xor", build.binary(place, "add", pointer, distance), pointer)
        beyond = build.binary(place, "shr", differing, build.const(place, _STACK_BITS, U64))
        outside = build.compare(place, "ne", beyond, build.const(place, 0, U64))
        return self.cleared(word, build.convert(place, outside, U64))

    def _word(self, pointer: Value, offset: int) -> Value:
        return self.build.load(self.place, U64, pointer, offset, "user" if self.around.user else "kernel")

    def _in_file(self, offset: int) -> Value:
        where = self.around.definition.place
        assert isinstance(where, FilePlace)
        distance = self.build.const(self.place, offset - where.offset & _WORD, U64)
        return self.build.binary(self.place, "add", self.ip(), distance)


def unknown_types(what: str) -> UnsupportedError:
    """Return the error that *what* can't be found without types."""
    return UnsupportedError(f"{what} can't be found: no types are known here", hint="fetch registers, such as %di")
