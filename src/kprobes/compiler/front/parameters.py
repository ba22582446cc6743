"""What a handler is given: parameters by the prototype's names, fields of a tracepoint's record, `arg(n)`, `retval`.

In the entry part a parameter is read from the hit, once. In the exit part it is no longer there: it is captured at the
entry and kept for the call, in a slot that is restored (see `parts`).
"""

from __future__ import annotations

from kprobes.compiler.front import pointers, texts
from kprobes.compiler.front.abi import integer_indexes
from kprobes.compiler.front.annotations import annotated, ctype_of, parameters_of
from kprobes.compiler.front.terms import Pointer, RecordArray, Term, Text, integer
from kprobes.compiler.front.text import did_you_mean, listed
from kprobes.compiler.ir.nodes import I64, U64, RecordText, Slot, Value
from kprobes.model.ctype import Array, CType, Function, Int, Void, format_ctype
from kprobes.model.ctype import Pointer as CPointer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context
    from kprobes.compiler.front.surroundings import RecordField

# Functions that stand between a system call and its work take pointers of the caller's, which types don't tell apart.
SYSCALL_PREFIXES = (
    "__x64_sys_",
    "__ia32_sys_",
    "__arm64_sys_",
    "__se_sys_",
    "__do_sys_",
    "__sys_",
    "do_sys_",
    "ksys_",
    "compat_sys_",
)
RECORD_TEXT = 256
FUNCTION = -1  # among the arguments: the address of the probed instruction
NO_SELF = "a handler is no method: move it out of the class"


class Parameters:
    """The parameters of one handler, read where they are first used and captured where they must cross to the exit."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.prototype: Function | None = ctx.around.prototype
        self._indexes: tuple[int | None, ...] | None = None
        self._read: dict[tuple[str, int], Value] = {}
        self._captured: dict[Slot, int] = {}
        self._field_types: dict[str, CType] = {}

    def annotate(self, definition: ast.FunctionDef) -> None:
        """Take in what the handler's annotations say of types.

        Raises:
            CompileError: one names no type of C, or they leave one open.
        """
        if self.ctx.around.record:
            for node in parameters_of(definition):
                ctype = ctype_of(self.ctx, node.annotation) if node.annotation is not None else None
                if ctype is not None:
                    self._field_types[node.arg] = ctype
            return
        self.prototype = annotated(self.ctx, definition, self.ctx.around.prototype)

    # Names.

    def names(self) -> list[str]:
        """Return the names a handler may take parameters by."""
        if self.ctx.around.record:
            return [one.name for one in self.ctx.around.record]
        if self.prototype is None:
            return []
        return [parameter.name for parameter in self.prototype.parameters if parameter.name]

    def check(self, node: ast.arg) -> None:
        """Refuse a parameter of the handler that the probed place doesn't have.

        Raises:
            CompileError: there is none of that name, or none can be read here.
        """
        ctx, name = self.ctx, node.arg
        if name in ("regs", "retval") and name not in self.names():
            return
        if ctx.around.record:
            if name not in self.names():
                hint = did_you_mean(name, self.names(), f"it has {listed(self.names())}")
                raise ctx.error(node, f"the record of this tracepoint has no field {name!r}", hint)
            return
        self._require_entry(node)
        if self.prototype is None:
            raise ctx.error(
                node,
                f"nothing tells what {name!r} is: {ctx.around.untyped or 'the probed function has no known prototype'}",
                f"say what it is, by its place: def handler({name}: u64); or use arg(1), {ctx.first_register}",
            )
        if name not in self.names():
            known = self.names()
            what = f"{self.prototype.name or 'the probed function'} has no parameter {name!r}"
            has = f"it has {listed(known)}" if known else "it takes none, or the types don't name them: use arg(1), ..."
            raise ctx.error(node, what, NO_SELF if name == "self" else did_you_mean(name, known, has))

    def _require_entry(self, node: ast.AST) -> None:
        if not self.ctx.around.at_entry:
            raise self.ctx.error(
                node,
                "the arguments of a function can be read at its entry only",
                f"use registers: {self.ctx.first_register}",
            )

    # Reading.

    def by_name(self, node: ast.AST, name: str) -> Term:
        """Return the parameter *name*, which `check` has let through."""
        for one in self.ctx.around.record:
            if one.name == name:
                return self._field(node, one)
        assert self.prototype is not None
        names = [parameter.name for parameter in self.prototype.parameters]
        return self.by_number(node, names.index(name))

    def by_number(self, node: ast.AST, number: int) -> Term:
        """Return parameter *number*, from 0, with its C type where that is known.

        Raises:
            CompileError: it can't be read, or the function has fewer.
        """
        ctx = self.ctx
        self._require_entry(node)
        if ctx.around.kind == "tracepoint":
            raise ctx.error(
                node, "a tracepoint has fields, not arguments", "take the fields as parameters of the handler"
            )
        if self.prototype is None:
            return integer(self._argument(node, number), "uint")
        parameters = self.prototype.parameters
        if number >= len(parameters):
            if self.prototype.variadic:
                return integer(self._argument(node, number), "uint")
            what = f"{self.prototype.name or 'the function'} has {len(parameters)} parameters, not {number + 1}"
            has = listed(one.name or "one without a name" for one in parameters)
            raise ctx.error(
                node, what, f"they are {has}" if parameters else f"{ctx.first_register} is the first register"
            )
        ctype = parameters[number].type
        index = self._index(node, number, ctype)
        return pointers.of_type(ctx, node, self._argument(node, index), ctype, self.space(ctype))

    def readable(self) -> list[str]:
        """Return the names of the parameters that can be read, in their order."""
        if self.ctx.around.record:
            return self.shown_fields()
        if self.prototype is None or not self.ctx.around.at_entry:
            return []
        found = zip(self.prototype.parameters, self.indexes(), strict=True)
        return [one.name for one, index in found if one.name and index is not None and pointers.is_readable(one.type)]

    def are_unknown(self) -> bool:
        """Tell whether there are arguments, and nothing tells which."""
        return not self.ctx.around.record and self.prototype is None and self.ctx.around.at_entry

    def raw(self, node: ast.AST, number: int) -> Term:
        """Return argument *number*, from 0, as it lies in its register, to be shown in hexadecimal."""
        return integer(self._argument(node, number), "hex")

    def is_string(self, name: str) -> bool:
        """Tell whether the parameter *name* is a string to show: `const char *`, or `char *` in a record."""
        types = {one.name: one.type for one in self.ctx.around.record}
        if self.prototype is not None:
            types |= {one.name: one.type for one in self.prototype.parameters}
        ctype = types.get(name)
        wanted = isinstance(ctype, CPointer) and (ctype.const or bool(self.ctx.around.record))
        return wanted and isinstance(ctype, CPointer) and texts.is_char(ctype.target)

    def indexes(self) -> tuple[int | None, ...]:
        """Return the number of each parameter in the C ABI's order of integer arguments; None where it has none."""
        if self._indexes is None:
            true = self.ctx.around.prototype or self.prototype  # annotations don't change where arguments lie
            assert true is not None
            self._indexes = integer_indexes(
                true, self.ctx.around.types, self.ctx.around.arch, kernel=not self.ctx.around.user
            )
        return self._indexes

    def _index(self, node: ast.AST, number: int, ctype: CType) -> int:
        if not pointers.is_readable(ctype):
            raise self.ctx.error(
                node, f"a parameter of type {format_ctype(ctype)} can't be read", "only integers and pointers can"
            )
        index = self.indexes()[number]
        if index is None:
            raise self.ctx.error(
                node,
                "where this parameter lies can't be told: one before it is passed in memory",
                "read it from the stack: regs.sp",
            )
        return index

    def space(self, ctype: CType) -> str:
        """Return where a parameter of *ctype* points: the kernel's or the process's memory, or `any`."""
        if self.ctx.around.user:
            return "user"
        if not isinstance(ctype, CPointer) or isinstance(ctype.target, Int | Void):
            return "any"
        if self.prototype is not None and self.prototype.name.startswith(SYSCALL_PREFIXES):
            return "any"
        return "kernel"

    def _argument(self, node: ast.AST, index: int) -> Value:
        """Return integer argument *index* as u64, read in the prologue of the part under construction."""
        build = self.ctx.build
        key = (build.part, index)
        if key in self._read:
            return self._read[key]
        current, build.current = build.current, build.prologue_block
        place = self.ctx.place(node)
        if build.part == "entry":
            value = build.context(place, "function" if index == FUNCTION else "argument", max(index, 0))
        else:
            slot = Slot(".function" if index == FUNCTION else f".arg{index + 1}", U64)
            self._captured[slot] = index
            value = build.read_slot(place, slot)
        build.current = current
        self._read[key] = value
        return value

    def probed(self, node: ast.AST) -> Value:
        """Return the address of the probed instruction, also in the exit part."""
        return self._argument(node, FUNCTION)

    def captured(self, node: ast.AST, slot: Slot) -> Value | None:
        """Return, in the entry part, the value that *slot* of the exit part stands for; None if it is no argument's."""
        index = self._captured.get(slot)
        return None if index is None else self._argument(node, index)

    # Results and records.

    def returned(self, node: ast.AST) -> Term:
        """Return what the probed function returned, as its C type.

        Raises:
            CompileError: this isn't a return, or nothing is returned.
        """
        ctx = self.ctx
        if not ctx.around.returns:
            when = "an instruction has run" if ctx.build.part == "exit" else "the function has yet to run"
            raise ctx.error(node, f"there is no return value here: {when}", "use @kretprobe or @uretprobe")
        if ctx.build.part == "entry":
            raise ctx.error(node, "there is no return value before the yield", "use it after the yield")
        ctype: CType | None = self.prototype.returns if self.prototype else None
        if isinstance(ctype, Void):
            name = self.prototype.name if self.prototype else ""
            raise ctx.error(node, f"{name or 'the function'} returns nothing", "write `yield` alone")
        value = ctx.build.context(ctx.place(node), "return")
        if ctype is None:
            return integer(ctx.build.convert(ctx.place(node), value, I64))
        return pointers.of_type(ctx, node, value, ctype, "user" if ctx.around.user else "kernel")

    def _field(self, node: ast.AST, field: RecordField) -> Term:
        ctx = self.ctx
        place = ctx.place(node)
        offset, size, ctype = field.offset, field.size, self._field_types.get(field.name, field.type)
        if isinstance(ctype, Array):
            return self._array_field(node, field, ctype)
        if isinstance(ctype, CPointer):
            value = ctx.build.context(place, "record", offset)
            return Pointer(value, 0, ctype.target, "user" if ctype.user else "any")
        kind = pointers.int_type(ctype)
        if kind is None or kind.bits > 8 * size:
            raise ctx.error(
                node,
                f"the field {field.name} is of type {format_ctype(ctype)}",
                "only integers, pointers and strings can be read",
            )
        return pointers.extended(ctx, place, ctx.build.context(place, "record", offset, kind=kind), ctype)

    def _array_field(self, node: ast.AST, field: RecordField, ctype: Array) -> Term:
        ctx, offset, size = self.ctx, field.offset, field.size
        place = ctx.place(node)
        if texts.is_char(ctype.element) and field.location == "data":
            return Text(RECORD_TEXT, None, lambda slot: RecordText(place, slot, offset))
        if texts.is_char(ctype.element) and not field.location:
            return Text(min(size, texts.LARGEST_ARRAY), None, lambda slot: RecordText(place, slot, offset, size))
        element = pointers.int_type(ctype.element)
        if field.location or element is None:
            raise ctx.error(
                node,
                f"the field {field.name} can't be read: it is an array of {format_ctype(ctype.element)}",
                "of such arrays only those of char can",
            )
        return RecordArray(offset, element, ctype.count)

    def shown_fields(self) -> list[str]:
        """Return the fields of the record that can be part of an event, without those that all tracepoints have."""
        return [one.name for one in self.ctx.around.record if not one.name.startswith("common_") and _is_shown(one)]


def _is_shown(field: RecordField) -> bool:
    if isinstance(field.type, Array):
        return texts.is_char(field.type.element) and field.location != "relative"
    return pointers.is_readable(field.type)
