"""Types named in expressions: `cast`, `sizeof`, `offsetof`, `container_of`.

A type is named by text as in C (`"struct file *"`), or by an object: a word (`u32`), a struct class, an enum class.
"""

from __future__ import annotations

import re

from kprobes.compiler.front import integers, pointers
from kprobes.compiler.front.terms import Constant, Literal, Number, Outside, Pointer, Term, describe
from kprobes.compiler.front.text import did_you_mean, listed
from kprobes.errors import UsageError
from kprobes.frozen import replace
from kprobes.model.ctype import Array, CType, Enum, Int, Member, Struct, Void, format_ctype, sizeof
from kprobes.model.ctype import Pointer as CPointer
from kprobes.model.cwords import WORDS, ArrayOf, CWord, PointerTo
from kprobes.model.structs import is_enum, shape_of, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context

_STEP = re.compile(r"(?:\A|\.)\s*(\w+)\s*|\[\s*(\d+)\s*\]\s*")


def type_named(ctx: Context, node: ast.AST, name: str) -> tuple[CType, bool]:
    """Return the C type called *name*, and whether the name says `__user`.

    Raises:
        CompileError: no such type is known.
    """
    words = name.replace("*", " * ").split()
    user = "__user" in words
    spelling = " ".join(word for word in words if word not in ("__user", "const", "volatile"))
    found = ctx.own.typename(spelling) or (WORDS[spelling].type if spelling in WORDS else None)
    if found is None:
        hint = 'write it as in C: "u32", "struct file *", "char *"'
        if spelling.split()[0:1] and spelling.split()[0] not in ("struct", "union", "enum"):
            bare = spelling.split()[0]
            if ctx.own.struct(bare) is not None:
                hint = f'did you mean "struct {spelling}"?'
        raise ctx.error(node, f"no C type {name!r} is known here", hint)
    return found, user


def own_type(ctx: Context, node: ast.AST, kind: object) -> CType:
    """Return the C type that the Python object *kind* stands for.

    Raises:
        CompileError: it stands for none.
    """
    try:
        found = ctx.own.ctype(kind)
    except LookupError as error:
        raise ctx.error(
            node, f"no C type {error.args[0]!r} is known here", "the probed program has no such type"
        ) from None
    if found is None:
        name = getattr(kind, "__name__", str(kind))
        hint = 'use u32, cstr, ptr, a @struct class or text as in C: "struct file *"'
        if isinstance(kind, type) and "__annotations__" in vars(kind):
            hint = f"decorate {name} with @struct"
        raise ctx.error(node, f"{name} is no type of C", hint)
    return found


def type_of(ctx: Context, given: tuple[Term, ast.AST]) -> tuple[CType, bool]:
    """Return the C type that an argument names, and whether it says `__user`.

    Raises:
        CompileError: it names none.
    """
    term, where = given
    if isinstance(term, Literal) and term.text.strip():
        own = _own_by_text(ctx, term.text)
        return type_named(ctx, where, term.text) if own is None else (own_type(ctx, where, own), False)
    if isinstance(term, Outside):
        return own_type(ctx, where, term.thing), False
    raise ctx.error(where, f"a C type is wanted here, this is {describe(term)}", 'write "u32", "struct file *", u32')


def _own_by_text(ctx: Context, text: str) -> object:
    """Return what `"Header *"` or `"Header[2]"` means where Header is a class of the handler's module, else None."""
    found = ctx.frame.names.get(text.partition("[")[0].replace("*", " ").strip())
    return spelled(text, ctx.frame.names) if shape_of(found) is not None or is_enum(found) else None


def part_of_type(ctx: Context, node: ast.AST, owner: Outside, index: Term) -> Outside:
    """Return the type `u16[4]` or `ptr[Header]`.

    Raises:
        CompileError: *owner* is no word of C, or can't have such an index.
    """
    inner = index.thing if isinstance(index, Outside) else getattr(index, "value", getattr(index, "text", None))
    try:
        if isinstance(owner.thing, CWord | ArrayOf) and isinstance(inner, int):
            return Outside(owner.thing[inner], owner.path)
        if owner.thing == WORDS["ptr"]:
            return Outside(PointerTo(inner), owner.path)
    except UsageError as error:
        raise ctx.error(node, error.what, error.hint) from None
    raise ctx.error(node, f"{describe(owner)} has no elements", "u8[16] and ptr[Header] are types")


def cast(ctx: Context, node: ast.AST, term: Term, given: tuple[Term, ast.AST]) -> Term:
    """Return *term* as the C type that *given* names; a struct means a pointer to it.

    Raises:
        CompileError: the type is unknown, or neither integer nor pointer.
    """
    ctype, user = type_of(ctx, given)
    if isinstance(ctype, Struct):
        ctype = CPointer(ctype)
    if isinstance(ctype, CPointer | Array):
        return _cast_pointer(ctx, node, term, ctype, user=user)
    kind = pointers.int_type(ctype)
    if kind is None:
        raise pointers.unusable(ctx, given[1], ctype)
    if isinstance(ctype, Int) and ctype.kind == "bool":
        return Number(integers.truth(ctx, node, term), "bool", 0, 1)
    value = integers.narrow(ctx, node, term, kind)
    return pointers.extended(ctx, ctx.place(node), value, ctype)


def _cast_pointer(ctx: Context, node: ast.AST, term: Term, ctype: CPointer | Array, *, user: bool) -> Pointer:
    space = term.space if isinstance(term, Pointer) else ctx.default_space
    base, offset = (term.base, term.offset) if isinstance(term, Pointer) else (integers.address(ctx, node, term), 0)
    if isinstance(ctype, Array):
        return Pointer(base, offset, ctype.element, "user" if user else space, count=ctype.count, embedded=True)
    return Pointer(base, offset, ctype.target, "user" if user or ctype.user else space, text=ctype.text)


def size_of(ctx: Context, given: tuple[Term, ast.AST]) -> Constant:
    """Return the size in bytes of a type, or of what a pointer of the handler points to.

    Raises:
        CompileError: it is not known.
    """
    term, where = given
    if isinstance(term, Pointer):
        ctype: CType = Array(term.target, term.count) if term.count is not None else CPointer(term.target)
        ctype = term.target if term.embedded and term.count is None else ctype
    elif isinstance(term, Number):
        ctype = Int("", term.store.bits // 8 if term.store else 8, False)
    else:
        ctype = type_of(ctx, given)[0]
    size = sizeof(ctype)
    if not size:
        raise ctx.error(where, f"the size of {format_ctype(ctype)} is not known", "it is only declared, or has no end")
    return Constant(size)


def offset_of(ctx: Context, given: tuple[Term, ast.AST], path: tuple[Term, ast.AST]) -> tuple[Struct, int]:
    """Return the struct that *given* names, and where in it the member lies that *path* (`"a.b[2].c"`) names, in bytes.

    Raises:
        CompileError: there is no such struct or member, or it is a bit-field.
    """
    ctype = type_of(ctx, given)[0]
    struct = ctype.target if isinstance(ctype, CPointer) else ctype
    if not isinstance(struct, Struct):
        raise ctx.error(given[1], f"{format_ctype(struct)} has no members", 'name a struct: "struct file"')
    text, where = path
    if not isinstance(text, Literal) or not text.text.strip():
        raise ctx.error(where, f"the member is named by text, this is {describe(text)}", 'write "tag_set.list"')
    return struct, _offset(ctx, where, struct, text.text)


def _offset(ctx: Context, node: ast.AST, struct: Struct, path: str) -> int:
    at, bits, ctype = 0, 0, struct
    inner: CType = ctype
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise ctx.error(node, f"{path!r} names no member", 'write it as in C: "a.b[2].c"')
        at = step.end()
        if step[2]:
            if not isinstance(inner, Array) or (inner.count and int(step[2]) >= inner.count):
                raise ctx.error(
                    node, f"there is no element [{step[2]}] in {format_ctype(inner)}", "arrays count from 0"
                )
            inner = inner.element
            bits += 8 * sizeof(inner) * int(step[2])
            continue
        member = _member(ctx, node, inner, step[1])
        if member.bit_size:
            raise ctx.error(node, f"{member.name} is a bit-field, which has no address", "name a member that has one")
        bits, inner = bits + member.bit_offset, member.type
    return bits // 8


def _member(ctx: Context, node: ast.AST, ctype: CType, name: str) -> Member:
    found = pointers.member_of(ctx, node, ctype, name) if isinstance(ctype, Struct) else None
    if found is not None:
        return found
    what = format_ctype(ctype)
    if not isinstance(ctype, Struct):
        raise ctx.error(node, f"{what} has no member {name!r}", "pointers on the way can't be followed here")
    names = ctx.own.member_names(ctype)
    raise ctx.error(node, f"{what} has no member {name!r}", did_you_mean(name, names, f"it has {listed(names)}"))


def container_of(ctx: Context, node: ast.AST, term: Term, struct: Struct, offset: int) -> Pointer:
    """Return the *struct* that has what *term* points to at *offset*."""
    if isinstance(term, Pointer):
        return Pointer(term.base, term.offset - offset, struct, term.space)
    return Pointer(integers.address(ctx, node, term), -offset, struct, ctx.default_space)


def named_values(ctx: Context, number: Number, given: tuple[Term, ast.AST]) -> Number:
    """Return *number*, shown as a set of the flags that *given* names.

    Raises:
        CompileError: it names no enumeration.
    """
    ctype = type_of(ctx, given)[0]
    if not isinstance(ctype, Enum):
        hint = 'name an enumeration: "enum pid_type", or a class of Python\'s enum.IntFlag'
        raise ctx.error(given[1], f"{format_ctype(ctype)} has no names for its values", hint)
    return replace(number, enum=replace(ctype, flags=True))


def deref(ctx: Context, node: ast.AST, term: Term, ctype: CType | None) -> Term:
    """Return what *term* points to, read as *ctype* (None: as its own type says).

    Raises:
        CompileError: *term* is no pointer and no type is given.
    """
    if isinstance(term, Pointer):
        if ctype is None:
            return pointers.element(ctx, node, term, Constant(0), node)
        return pointers.read(ctx, node, term, 0, ctype)
    if ctype is None:
        raise ctx.error(node, "deref() of an integer needs a type", 'write deref(address, "u32")')
    base = integers.address(ctx, node, term)
    return pointers.read(ctx, node, Pointer(base, 0, Void(), ctx.default_space), 0, ctype)
