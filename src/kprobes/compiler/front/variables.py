"""The types of local variables, and how their content is kept in slots.

A variable has one type in a handler, that of all its assignments together: integers become u64 if any of them is u64,
strings get the largest size. The types are found by compiling until they stand still (see `compile`).
"""

from __future__ import annotations

from kprobes.compiler.front import integers, texts
from kprobes.compiler.front.terms import (
    Constant,
    Items,
    Literal,
    Made,
    Nothing,
    Number,
    Pointer,
    Term,
    Text,
    describe,
    integer,
    limits,
)
from kprobes.compiler.ir.nodes import I64, U64, IntType, Slot
from kprobes.frozen import dataclass, replace
from kprobes.model.ctype import CType, Enum, Void

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context
    from kprobes.errors import CompileError
    from kprobes.model.structs import Shape


@dataclass(frozen=True, slots=True)
class IntVariable:
    """An integer, kept as i64 or u64; shown as *kind* (empty while only literals were assigned), always within *store*
    where that is set, by the names of *enum*."""

    type: IntType
    kind: str
    store: IntType | None
    enum: Enum | None = None


@dataclass(frozen=True, slots=True)
class PointerVariable:
    """A pointer; *target* is None as long as only `None` was assigned."""

    target: CType | None
    space: str


@dataclass(frozen=True, slots=True)
class TextVariable:
    """A string of at most *size* - 1 bytes. *grown* counts how often the size was found to be too small."""

    size: int
    grown: int = 0


@dataclass(frozen=True, slots=True)
class ItemsVariable:
    """A tuple, or a struct of the user's own that was made of as many parts."""

    items: tuple[Variable, ...]
    shape: Shape | None = None


# A string that was found too small more often than that grows with itself; its size then.
MOST_GROWN = 6
GROWING = 256

# Kinds that a plain integer can't be shown as.
_WHOLE = ("bool", "stack", "user_stack")

Variable = IntVariable | PointerVariable | TextVariable | ItemsVariable


def variable_for(term: Term) -> Variable | None:
    """Return the type of a variable that holds *term*; None if none can."""
    if isinstance(term, Constant):
        wide = U64 if term.value > limits(I64)[1] else I64
        return IntVariable(wide, "" if term.kind == "int" else term.kind, None)
    if isinstance(term, Number):
        return IntVariable(U64 if term.value.type == U64 else I64, term.kind, term.store, term.enum)
    if isinstance(term, Nothing):
        return PointerVariable(None, "kernel")
    if isinstance(term, Pointer):
        if texts.is_text(term):
            return TextVariable(texts.size_of(term))
        return PointerVariable(term.target, term.space)
    if isinstance(term, Literal | Text):
        return TextVariable(texts.size_of(term))
    if isinstance(term, Items | Made):
        items = [variable_for(item) for item in term.items]
        shape = term.shape if isinstance(term, Made) else None
        return ItemsVariable(tuple(item for item in items if item is not None), shape) if None not in items else None
    return None


def joined(one: Variable, other: Variable) -> Variable | None:
    """Return the type of a variable that holds both; None if none can."""
    if isinstance(one, IntVariable) and isinstance(other, IntVariable):
        return _joined_integers(one, other)
    if isinstance(one, TextVariable) and isinstance(other, TextVariable):
        return _joined_texts(one, other)
    if isinstance(one, PointerVariable) and isinstance(other, PointerVariable):
        return _joined_pointers(one, other)
    if isinstance(one, ItemsVariable) and isinstance(other, ItemsVariable) and len(one.items) == len(other.items):
        if one.shape is not other.shape:
            return None
        items = [joined(a, b) for a, b in zip(one.items, other.items, strict=True)]
        whole = tuple(item for item in items if item is not None)
        return ItemsVariable(whole, one.shape) if None not in items else None
    return None


def _joined_texts(one: TextVariable, other: TextVariable) -> TextVariable:
    """Return a string that holds both; one that grows with itself, as in `s += "x"`, gets a size that is enough for
    most, and is cut there."""
    if other.size <= one.size or one.grown > MOST_GROWN:
        return one
    if one.grown == MOST_GROWN:
        return TextVariable(max(one.size, GROWING), one.grown + 1)
    return TextVariable(other.size, one.grown + 1)


def _joined_integers(one: IntVariable, other: IntVariable) -> IntVariable:
    if one == other:
        return one
    wide = U64 if U64 in (one.type, other.type) else I64
    kinds = {one.kind, other.kind} - {""}  # `x = 0` before the real value doesn't change how that is shown
    kind = kinds.pop() if len(kinds) == 1 else ""
    if kind in _WHOLE and one.kind != other.kind:
        kind = ""
    if kind in ("", "int", "uint"):
        kind = "uint" if wide == U64 else "int"
    enum = one.enum if one.enum == other.enum or not other.kind else other.enum if not one.kind else None
    return IntVariable(wide, kind, one.store if one.store == other.store else None, enum)


def _joined_pointers(one: PointerVariable, other: PointerVariable) -> PointerVariable | None:
    if one.target is None:
        return other
    if other.target is None or other.target == one.target:
        same = other.target is None or one.space == other.space
        return PointerVariable(one.target, one.space if same else "any")
    if isinstance(other.target, Void) or isinstance(one.target, Void):
        typed = one.target if isinstance(other.target, Void) else other.target
        return PointerVariable(typed, one.space if one.space == other.space else "any")
    return None


def describe_variable(variable: Variable) -> str:
    """Return what *variable* holds, in a user's words."""
    if isinstance(variable, IntVariable):
        return {"stack": "a stack", "user_stack": "a user stack"}.get(variable.kind, "an integer")
    if isinstance(variable, PointerVariable):
        from kprobes.model.ctype import Pointer as CPointer
        from kprobes.model.ctype import format_ctype

        return "None" if variable.target is None else f"a {format_ctype(CPointer(variable.target))}"
    if isinstance(variable, ItemsVariable) and variable.shape is not None:
        return f"a {variable.shape.name}"
    return "a string" if isinstance(variable, TextVariable) else f"a tuple of {len(variable.items)}"


def write(ctx: Context, node: ast.AST, key: str, variable: Variable, term: Term) -> None:
    """Store *term* as *variable* into the slots called *key*."""
    place = ctx.place(node)
    if isinstance(variable, ItemsVariable):
        assert isinstance(term, Items | Made)
        for index, (item, part) in enumerate(zip(variable.items, term.items, strict=True)):
            write(ctx, node, f"{key}.{index}", item, part)
    elif isinstance(variable, TextVariable):
        texts.store(ctx, node, term, Slot(key, None, variable.size))
    elif isinstance(variable, PointerVariable):
        ctx.build.write_slot(place, Slot(key, U64), integers.address(ctx, node, term))
    else:
        ctx.build.write_slot(place, Slot(key, variable.type), integers.wide(ctx, node, term, variable.type))


def read(ctx: Context, node: ast.AST, key: str, variable: Variable) -> Term:
    """Return the term that stands for what the slots called *key* hold now."""
    place = ctx.place(node)
    if isinstance(variable, ItemsVariable):
        items = tuple(read(ctx, node, f"{key}.{i}", item) for i, item in enumerate(variable.items))
        return Items(items) if variable.shape is None else Made(variable.shape, items)
    if isinstance(variable, TextVariable):
        return Text(variable.size, Slot(key, None, variable.size))
    value = ctx.build.read_slot(place, Slot(key, U64 if isinstance(variable, PointerVariable) else variable.type))
    if isinstance(variable, PointerVariable):
        return Pointer(value, 0, variable.target or Void(), variable.space)
    if variable.kind == "bool":
        return Number(value, "bool", 0, 1)
    found = integer(value, variable.kind, variable.store)  # an empty kind means that of the type
    return replace(found, enum=variable.enum) if variable.enum else found


def slots(key: str, variable: Variable) -> list[Slot]:
    """Return the slots in which *variable* is kept."""
    if isinstance(variable, ItemsVariable):
        return [slot for index, item in enumerate(variable.items) for slot in slots(f"{key}.{index}", item)]
    if isinstance(variable, TextVariable):
        return [Slot(key, None, variable.size)]
    return [Slot(key, U64 if isinstance(variable, PointerVariable) else variable.type)]


def mismatch(ctx: Context, node: ast.AST, name: str, old: Variable, term: Term) -> CompileError:
    """Return the error of assigning *term* to *name*, which holds something else."""
    hint = "a variable keeps its type: use another name for the second"
    if isinstance(old, PointerVariable) and isinstance(term, Pointer):
        hint = 'use another name, or cast(..., "struct x *")'
    return ctx.error(node, f"{name} holds {describe_variable(old)} and can't become {describe(term)}", hint)
