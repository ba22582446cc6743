"""The arguments of a definition in C: `+0(%si):string` becomes a read that can't fault, and a piece of a printk.

Each argument has a local of its own name. As in a trace, what can't be read is shown as `(fault)` where it is a string
and as zeros else. Memory is the kernel's or the process's as the address says, as on x86 the kernel itself has it.
"""

from __future__ import annotations

import re

from kprobes.errors import UsageError
from kprobes.export.cnaming import c_string
from kprobes.frozen import dataclass
from kprobes.model.definition import (
    Comm,
    FunctionArgument,
    Immediate,
    Memory,
    Parameter,
    Register,
    ReturnValue,
    Stack,
    StackWord,
    SymbolAddress,
    Text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.export.cnaming import Names
    from kprobes.model.definition import Argument, Term

TEXT_SIZE = 128
MOST_STACK = 1280  # bytes of locals in a handler: the kernel warns at 2,048
_PLAIN = re.compile(r"\w+(->\w+)?|\w+\([^()]*\)")
ARGUMENT_REGISTERS = ("di", "si", "dx", "cx", "r8", "r9")


@dataclass(frozen=True, slots=True)
class Fetched:
    """One argument in C: *declarations* of locals, *statements* that fill them, and its piece of the printk."""

    declarations: tuple[str, ...]
    statements: tuple[str, ...]
    format: str
    values: tuple[str, ...]
    size: int = 0


class Fetcher:
    """Turns the arguments of one definition into C; gathers what they need.

    *names* gives out the handler's locals; *comments* tell of a register what the prototype calls it. *helpers* and
    *symbols* (name of a symbol -> variable with its address) are what the text has used.
    """

    def __init__(self, names: Names, prefix: str, comments: dict[str, str], *, is_return: bool) -> None:
        self._names = names
        self._prefix = prefix
        self._comments = comments
        self._is_return = is_return
        self.helpers: list[str] = []
        self.symbols: dict[str, str] = {}
        self.entry_arguments: list[int] = []

    def fetch(self, argument: Argument) -> Fetched:
        """Return *argument* in C.

        Raises:
            UsageError: there is no such thing in a module.
        """
        local = self._names.new(argument.name)
        if isinstance(argument.term, Comm):
            return Fetched((), (), f'{argument.name}="%s"', ("current->comm",))
        if isinstance(argument.term, Text):
            return Fetched((), (), f'{argument.name}="%s"', (c_string(argument.term.value),))
        if argument.type.string and argument.type.name != "symstr":
            return self._string(argument, local)
        if argument.count:
            return self._array(argument, local)
        return self._number(argument, local)

    def _number(self, argument: Argument, local: str) -> Fetched:
        kind = _c_type(argument)
        comment = self._comment(argument.term)
        if isinstance(argument.term, Memory):
            reader, address = self._place(argument.term)
            declared = f"{kind} {local};"
            read = [f"if (!{reader}(&{local}, {_pointer(address)}, sizeof({local})))", "\tfault = true;"]
        else:
            declared = f"{kind} {local} = {self._word(argument.term)};{comment}"
            read = []
        read += self._cut(argument, local, kind)
        shown, value = _shown(argument, local)
        return Fetched((declared,), tuple(read), f"{argument.name}={shown}", (value,), 8)

    def _cut(self, argument: Argument, local: str, kind: str) -> list[str]:
        """Return the statement that leaves the bits of a bit-field."""
        if argument.bits is None:
            return []
        whole = 8 * argument.type.size
        left = whole - argument.bits.width - argument.bits.offset
        return [f"{local} = ({kind})({local} << {left}) >> {whole - argument.bits.width};"]

    def _array(self, argument: Argument, local: str) -> Fetched:
        if not isinstance(argument.term, Memory):
            raise UsageError(f"{argument.name}: an array lies in memory", hint="+0(%si):u32[4]")
        kind = _c_type(argument)
        reader, address = self._place(argument.term)
        read = [f"if (!{reader}({local}, {_pointer(address)}, sizeof({local})))", "\tfault = true;"]
        elements = [f"{local}[{index}]" for index in range(argument.count)]
        if argument.bits is not None:
            for element in elements:
                read += self._cut(argument, element, kind)
        shown = [_shown(argument, element) for element in elements]
        text = ",".join(one for one, _ in shown)
        size = argument.count * argument.type.size
        declared = f"{kind} {local}[{argument.count}];"
        return Fetched(
            (declared,), tuple(read), f"{argument.name}={{{text}}}", tuple(value for _, value in shown), size
        )

    def _string(self, argument: Argument, local: str) -> Fetched:
        term = argument.term
        user = argument.type.name == "ustring" or (isinstance(term, Memory) and term.user)
        reader = "peek_user_string" if user else "peek_string"
        self.helpers += [reader, "TEXT_SIZE"]
        if not isinstance(term, Memory):
            raise UsageError(f"{argument.name}: a string lies in memory", hint="+0(%si):string")
        count = max(argument.count, 1)
        base = self._word(term.base)
        if argument.count > 1 or (argument.count == 1 and argument.body.endswith("[1]")):
            # an array of strings is one of pointers to them
            address = self._offset(base, term.offset)
            places = [self._word_at(self._offset(address, 8 * index), user=user) for index in range(count)]
        else:
            places = [self._offset(base, term.offset)]
        locals_ = [local] if count == 1 else [self._names.new(f"{local}{index}") for index in range(count)]
        declared = tuple(f"char {one}[TEXT_SIZE];" for one in locals_)
        read = tuple(
            line
            for one, place in zip(locals_, places, strict=True)
            for line in (
                f"if (!{reader}({one}, sizeof({one}), {_pointer(place)})) {{",
                "\tfault = true;",
                f'\tstrscpy({one}, "(fault)", sizeof({one}));',
                "}",
            )
        )
        shown = ",".join('"%s"' for _ in locals_)
        text = f"{{{shown}}}" if argument.count else shown
        return Fetched(declared, read, f"{argument.name}={text}", tuple(locals_), TEXT_SIZE * count)

    def _place(self, term: Memory) -> tuple[str, str]:
        """Return the function that reads at *term*, and the address."""
        reader = "peek_user" if term.user else "peek"
        self.helpers.append(reader)
        return reader, self._offset(self._word(term.base), term.offset)

    def _word(self, term: Term) -> str:
        """Return the expression of a word: an unsigned long."""
        if isinstance(term, Register):
            return f"regs->{term.name}"
        if isinstance(term, Stack):
            return "kernel_stack_pointer(regs)"
        if isinstance(term, StackWord):
            return f"regs_get_kernel_stack_nth(regs, {term.index})"
        if isinstance(term, ReturnValue):
            return "regs_return_value(regs)"
        if isinstance(term, FunctionArgument) or (isinstance(term, Parameter) and term.index >= 0):
            return self._argument(term.index)
        if isinstance(term, Immediate):
            return f"0x{term.value:x}UL"
        if isinstance(term, SymbolAddress):
            variable = self.symbols.setdefault(term.name, f"{self._prefix}_address_{len(self.symbols) + 1}")
            return self._offset(variable, term.offset)
        if isinstance(term, Memory):
            return self._word_at(self._offset(self._word(term.base), term.offset), user=term.user)
        raise UsageError(
            f"a {type(term).__name__} of a definition has no counterpart in a module",
            hint="write it by register and offset, +0x10(%di), or as a script: `file.f_pos` of a parameter",
        )

    def _word_at(self, address: str, *, user: bool) -> str:
        reader = "user_word_at" if user else "word_at"
        self.helpers.append(reader)
        return f"{reader}({address}, &fault)"

    def _argument(self, index: int) -> str:
        if self._is_return:
            if index not in self.entry_arguments:
                self.entry_arguments.append(index)
            return f"call->arg{index + 1}"
        return argument_in_c(index)

    @staticmethod
    def _offset(base: str, offset: int) -> str:
        if not offset:
            return base
        return f"{base} {'+' if offset > 0 else '-'} {abs(offset)}"

    def _comment(self, term: Term) -> str:
        name = term.name if isinstance(term, Register) else ""
        if isinstance(term, FunctionArgument | Parameter) and 0 <= term.index < len(ARGUMENT_REGISTERS):
            name = ARGUMENT_REGISTERS[term.index]
        told = self._comments.get(name, "")
        return f" /* {told} */" if told else ""


def _pointer(address: str) -> str:
    return f"(void *){address}" if _PLAIN.fullmatch(address) else f"(void *)({address})"


def argument_in_c(index: int) -> str:
    """Return argument *index*, from 0, of a function at its entry, in the kernel's spelling."""
    if index < len(ARGUMENT_REGISTERS):
        return f"regs->{ARGUMENT_REGISTERS[index]}"
    return f"regs_get_kernel_stack_nth(regs, {index - len(ARGUMENT_REGISTERS) + 1})"


def _c_type(argument: Argument) -> str:
    if argument.type.name in ("symbol", "symstr"):
        return "unsigned long"
    if argument.type.name == "char":
        return "char"
    return f"{'s' if argument.type.signed else 'u'}{8 * argument.type.size}"


def _shown(argument: Argument, value: str) -> tuple[str, str]:
    """Return the conversion of printk for one value, and the value."""
    name = argument.type.name
    if name in ("symbol", "symstr"):
        return ("%pS" if name == "symbol" else '"%pS"'), f"(void *){value}"
    if name == "char":
        return "'%c'", value
    wide = argument.type.size == 8
    letter = {"x": "x", "u": "u", "s": "d"}[name[0]]
    prefix = "0x" if letter == "x" else ""
    return f"{prefix}%{'ll' if wide else ''}{letter}", value
