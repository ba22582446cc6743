"""Pointers, struct fields and arrays: every read is safe, every type is C's."""

from __future__ import annotations

from kprobes.compiler.front import integers
from kprobes.compiler.front.terms import (
    Constant,
    Nothing,
    Number,
    Pointer,
    RecordArray,
    Term,
    describe,
    integer,
    limits,
    widened,
)
from kprobes.compiler.front.text import did_you_mean, listed
from kprobes.compiler.ir.nodes import BOOL, I64, U64, IntType, Place, Value
from kprobes.frozen import replace
from kprobes.model.ctype import Array, CType, Enum, Float, Function, Int, Member, Struct, Void, format_ctype, sizeof
from kprobes.model.ctype import Pointer as CPointer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context
    from kprobes.errors import CompileError


def int_type(ctype: CType) -> IntType | None:
    """Return the IR's type of a C integer or enum of at most 64 bits, else None."""
    if isinstance(ctype, Int | Enum) and ctype.size in (1, 2, 4, 8):
        return IntType(8 * ctype.size, ctype.signed)
    return None


def of_type(ctx: Context, node: ast.AST, value: Value, ctype: CType, space: str) -> Term:
    """Return *value*, 64 bits as a register or a call holds them, as what C calls *ctype*.

    Raises:
        CompileError: the type can't be computed with.
    """
    if isinstance(ctype, CPointer):
        return Pointer(value, 0, ctype.target, "user" if ctype.user else space, text=ctype.text)
    kind = int_type(ctype)
    if kind is None:
        raise unusable(ctx, node, ctype)
    place = ctx.place(node)
    return extended(ctx, place, ctx.build.convert(place, value, kind), ctype)


def extended(ctx: Context, place: Place, value: Value, ctype: CType) -> Number:
    """Return an integer of its C width as a term of 64 bits that remembers the width."""
    if isinstance(ctype, Int) and ctype.kind == "bool":
        return Number(ctx.build.convert(place, value, BOOL), "bool", 0, 1)  # whatever the byte holds: true or false
    store = value.type if value.type.bits < 64 else None
    wide = ctx.build.convert(place, value, widened(value.type))
    found = integer(wide, _shown(value.type), store)
    return replace(found, enum=ctype) if isinstance(ctype, Enum) else found


def _shown(kind: IntType) -> str:
    return "int" if kind.signed else "uint"


def unusable(ctx: Context, node: ast.AST, ctype: CType) -> CompileError:
    """Return the error of computing with a *ctype*."""
    what = format_ctype(ctype)
    if isinstance(ctype, Float):
        return ctx.error(node, f"{what} is a floating-point type", "handlers compute with integers only")
    if isinstance(ctype, Void):
        return ctx.error(node, "void has no value", 'say what it is: cast(x, "u32 *")[0]')
    if isinstance(ctype, Int):
        return ctx.error(node, f"{what} has {8 * ctype.size} bits", "integers have at most 64 bits")
    return ctx.error(node, f"a {what} is no integer or pointer", "name one of its fields")


# Fields.


def field(ctx: Context, node: ast.AST, pointer: Pointer, name: str) -> Term:
    """Return `pointer.name`.

    Raises:
        CompileError: there is no such field, or it can't be read.
    """
    struct = pointer.target
    if not isinstance(struct, Struct) or pointer.count is not None:
        raise _fieldless(ctx, node, pointer, name)
    member = member_of(ctx, node, struct, name)
    if member is None:
        raise _no_member(ctx, node, struct, name)
    if member.bit_size:
        return _bit_field(ctx, node, pointer, struct, member)
    return read(ctx, node, pointer, member.bit_offset // 8, member.type)


def member_of(ctx: Context, node: ast.AST, struct: Struct, name: str) -> Member | None:
    """Return the member *name* of *struct*, or None.

    Raises:
        CompileError: it is of a type that the probed program doesn't have.
    """
    try:
        return ctx.own.member(struct, name)
    except LookupError as error:
        raise ctx.error(node, f"no C type {error.args[0]!r} is known here", f"{name} is a pointer to it") from None


def _fieldless(ctx: Context, node: ast.AST, pointer: Pointer, name: str) -> CompileError:
    what = describe(pointer)
    if isinstance(pointer.target, CPointer) or pointer.count is not None:
        return ctx.error(node, f"{what} has no fields", f"name an element first: [0].{name}")
    if isinstance(pointer.target, Void):
        return ctx.error(node, f"{what} has no fields", 'say what it points to: cast(..., "struct x *")')
    if name in ("string", "user_string"):
        return ctx.error(node, f"{name} is a method", f"call it: .{name}()")
    return ctx.error(node, f"{what} has no fields", "read what it points to: [0]")


def _no_member(ctx: Context, node: ast.AST, struct: Struct, name: str) -> CompileError:
    what = format_ctype(struct)
    names = list(ctx.own.member_names(struct))
    if not names:
        return ctx.error(
            node,
            f"{what} is only declared here: its fields are not known",
            'cast it to a type that is known: cast(x, "struct y *")',
        )
    return ctx.error(node, f"{what} has no field {name!r}", did_you_mean(name, names, f"it has {listed(names)}"))


def _bit_field(ctx: Context, node: ast.AST, pointer: Pointer, struct: Struct, member: Member) -> Term:
    place, build = ctx.place(node), ctx.build
    found = int_type(member.type)
    if found is None:
        raise unusable(ctx, node, member.type)
    start, bits = _bit_unit(member, found.bits, 8 * struct.size)
    if not bits:
        raise ctx.error(
            node, f"the bit-field {member.name} spans more than 64 bits", 'read its parts: deref(address, "u64")'
        )
    low = member.bit_offset - start
    unit = build.load(place, IntType(bits, signed=False), pointer.base, pointer.offset + start // 8, pointer.space)
    value = build.convert(place, unit, I64 if found.signed else U64)
    value = build.binary(place, "shl", value, build.const(place, 64 - low - member.bit_size, value.type))
    value = build.binary(place, "shr", value, build.const(place, 64 - member.bit_size, value.type))
    result = build.convert(place, value, widened(found))
    if isinstance(member.type, Int) and member.type.kind == "bool":
        return Number(result, "bool", 0, 1)
    least, most = limits(IntType(member.bit_size, found.signed))
    store = found if found.bits < 64 else None
    return Number(result, _shown(found), least, most, store, member.type if isinstance(member.type, Enum) else None)


def _bit_unit(member: Member, type_bits: int, struct_bits: int) -> tuple[int, int]:
    """Return where the integer that holds a bit-field begins and its bits, (0, 0) if no integer does."""
    start = member.bit_offset // type_bits * type_bits
    if member.bit_offset + member.bit_size <= start + type_bits:
        return start, type_bits
    first = member.bit_offset // 8 * 8
    end = member.bit_offset + member.bit_size
    for bits in (8, 16, 32, 64):
        if end <= first + bits:
            if struct_bits and first + bits > struct_bits >= bits:
                first = struct_bits - bits  # never past the end of the struct
            return first, bits
    return 0, 0


def read(ctx: Context, node: ast.AST, pointer: Pointer, offset: int, ctype: CType) -> Term:
    """Return the *ctype* that lies *offset* bytes from *pointer*: read if it is a scalar, else its address."""
    offset += pointer.offset
    if isinstance(ctype, Struct):
        return Pointer(pointer.base, offset, ctype, pointer.space, embedded=True)
    if isinstance(ctype, Array):
        return Pointer(pointer.base, offset, ctype.element, pointer.space, count=ctype.count, embedded=True)
    place = ctx.place(node)
    if isinstance(ctype, CPointer):
        held = IntType(8 * ctype.size, signed=False)
        value = ctx.build.convert(place, ctx.build.load(place, held, pointer.base, offset, pointer.space), U64)
        return Pointer(value, 0, ctype.target, "user" if ctype.user else pointer.space, text=ctype.text)
    kind = int_type(ctype)
    if kind is None:
        if isinstance(ctype, Function):
            raise ctx.error(node, "a function can't be read", "show its address: symbol(...)")
        raise unusable(ctx, node, ctype)
    return extended(ctx, place, ctx.build.load(place, kind, pointer.base, offset, pointer.space), ctype)


# Elements and arithmetic.


def element(ctx: Context, node: ast.AST, pointer: Pointer, index: Term, index_node: ast.AST) -> Term:
    """Return `pointer[index]`. An element beyond the end of an array reads like one behind a null pointer.

    Raises:
        CompileError: the elements have no size, or a literal index is beyond an array's end.
    """
    count = pointer.count
    if isinstance(index, Constant) and count and not 0 <= index.value < count:
        raise ctx.error(index_node, f"index {index.value} is outside the array of {count}", "C arrays count from 0")
    if count and isinstance(index, Number) and not (index.low >= 0 and index.high < count):
        at = _within(ctx, node, pointer, (index, index_node), count)
    else:
        at = moved(ctx, node, pointer, index, index_node)
    if isinstance(pointer.target, Array):
        inner = pointer.target
        return Pointer(at.base, at.offset, inner.element, at.space, count=inner.count, embedded=True)
    if isinstance(pointer.target, Struct):
        return Pointer(at.base, at.offset, at.target, at.space, embedded=True)
    return read(ctx, node, at, 0, pointer.target)


def _within(ctx: Context, node: ast.AST, pointer: Pointer, index: tuple[Number, ast.AST], count: int) -> Pointer:
    """Return the address of the element *index* of an array of *count*, null where it has none."""
    place, build = ctx.place(node), ctx.build
    number = integers.wide(ctx, index[1], index[0], U64)  # what is below 0 is above all
    inside = build.compare(place, "lt", number, build.const(place, count, U64))
    found = ctx.select(node, inside, lambda: moved(ctx, node, pointer, *index), Nothing)
    assert isinstance(found, Pointer)
    return found


def moved(ctx: Context, node: ast.AST, pointer: Pointer, by: Term, by_node: ast.AST, *, back: bool = False) -> Pointer:
    """Return `pointer + by` (or `-`), counted in elements as in C."""
    size = sizeof(pointer.target)
    if isinstance(pointer.target, Void):
        size = 1  # as GNU C has it
    if not size:
        what = format_ctype(pointer.target)
        raise ctx.error(
            node, f"the size of {what} is not known, so its elements can't be counted", 'use cast(..., "char *")'
        )
    if isinstance(by, Constant):
        offset = pointer.offset + (-by.value if back else by.value) * size
        if -(1 << 31) <= offset < 1 << 31:
            return Pointer(pointer.base, offset, pointer.target, pointer.space)
    place, build = ctx.place(by_node), ctx.build
    steps = integers.wide(ctx, by_node, by, U64)
    if size != 1:
        steps = build.binary(place, "mul", steps, build.const(place, size, U64))
    base = build.binary(place, "sub" if back else "add", pointer.base, steps)
    return Pointer(base, pointer.offset, pointer.target, pointer.space)


def distance(ctx: Context, node: ast.AST, left: Pointer, right: Pointer) -> Term:
    """Return `left - right`, counted in elements as in C.

    Raises:
        CompileError: the pointers are of different types.
    """
    if left.target != right.target:
        raise ctx.error(
            node, f"{describe(left)} minus {describe(right)}", "subtract int(p) of both for a distance in bytes"
        )
    place, build = ctx.place(node), ctx.build
    one, other = integers.address(ctx, node, left), integers.address(ctx, node, right)
    apart = build.convert(place, build.binary(place, "sub", one, other), I64)
    size = sizeof(left.target) or 1
    if size > 1:
        apart = build.binary(place, "div", apart, build.const(place, size, I64))
    return integer(apart)


# Records of tracepoints.


def record_element(ctx: Context, node: ast.AST, array: RecordArray, index: Term) -> Term:
    """Return `array[index]`.

    Raises:
        CompileError: the index isn't a literal within the array.
    """
    if not isinstance(index, Constant):
        raise ctx.error(node, "the index of an array in a record must be a literal", "write [0], [1], ...")
    if not 0 <= index.value < array.count:
        raise ctx.error(node, f"index {index.value} is outside the array of {array.count}", "C arrays count from 0")
    place = ctx.place(node)
    offset = array.offset + index.value * array.element.bits // 8
    value = ctx.build.context(place, "record", offset, kind=array.element)
    return integer(ctx.build.convert(place, value, widened(array.element)), _shown(array.element), array.element)


def is_readable(ctype: CType) -> bool:
    """Tell whether a handler can name a value of *ctype*."""
    return isinstance(ctype, CPointer) or int_type(ctype) is not None
