"""Whole structs as values: made by calling their class, or named in memory; taken apart to be sent or kept."""

from __future__ import annotations

from kprobes.compiler.front import casts, integers, pointers, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.terms import Constant, Items, Made, Nothing, Number, Pointer, Term, describe
from kprobes.compiler.front.text import did_you_mean, listed
from kprobes.model.ctype import Array, Struct, format_ctype
from kprobes.model.ctype import Pointer as CPointer
from kprobes.model.cwords import ArrayOf, char
from kprobes.model.structs import MOST_FIELDS, shape_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator, Sequence

    from kprobes.compiler.front.context import Context
    from kprobes.model.structs import StructMember


def made(ctx: Context, node: ast.Call, cls: object, shown: str) -> Made:
    """Return the value of `Header(1, length=2)`: the members in order or by name, each given once.

    Raises:
        CompileError: members are missing, unknown or given twice; unions aren't made.
    """
    shape = shape_of(cls)
    assert shape is not None
    if shape.is_union:
        raise ctx.error(node, f"{shown} is a union, which isn't made in a handler", "cast a pointer to it")
    names = [member.name for member in shape.members]
    whole = f"it is {shown}({listed(names)})"
    if len(node.args) > len(names):
        raise ctx.error(node.args[len(names)], f"{shown} has {len(names)} members, {len(node.args)} are given", whole)
    members = {one.name: one for one in shape.members}
    given: dict[str, Term] = {}
    for name, argument in zip(names, node.args, strict=False):
        given[name] = _item(ctx, argument, members[name])
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ctx.error(keyword.value, "members can't be unpacked with **", "name them one by one")
        if keyword.arg not in names:
            raise ctx.error(
                keyword.value, f"{shown} has no member {keyword.arg!r}", did_you_mean(keyword.arg, names, whole)
            )
        if keyword.arg in given:
            raise ctx.error(keyword.value, f"{keyword.arg} is given twice", "give each member once")
        given[keyword.arg] = _item(ctx, keyword.value, members[keyword.arg])
    missing = [name for name in names if name not in given]
    if missing:
        raise ctx.error(node, f"{shown} needs {listed(missing)}", whole)
    return Made(shape, tuple(given[name] for name in names))


def _item(ctx: Context, node: ast.expr, one: StructMember) -> Term:
    """Return the value *node* for the member *one*: integers are cut to its width, as C does.

    Raises:
        CompileError: it is of another sort.
    """
    return as_member(ctx, node, one, texts.snapshot(ctx, node, ctx.lower(node)))


def as_member(ctx: Context, node: ast.AST, one: StructMember, term: Term) -> Term:
    """Return *term* as the member *one* holds it.

    Raises:
        CompileError: it is of another sort.
    """
    ctype = casts.own_type(ctx, node, one.type)
    if texts.is_text(term) and isinstance(ctype, Array | CPointer):
        return term
    inner = shape_of(one.type)
    if inner is not None and isinstance(term, Made) and term.shape is inner:
        return term
    if isinstance(ctype, CPointer) and isinstance(term, Pointer | Nothing | Number | Constant):
        space = term.space if isinstance(term, Pointer) else ctx.default_space
        return Pointer(integers.address(ctx, node, term), 0, ctype.target, space)
    kind = pointers.int_type(ctype)
    if kind is not None and isinstance(term, Number | Constant):
        return pointers.extended(ctx, ctx.place(node), integers.narrow(ctx, node, term, kind), ctype)
    raise ctx.error(
        node, f"the member {one.name} is of type {format_ctype(ctype)}, this is {describe(term)}", advice(term)
    )


def member(ctx: Context, node: ast.AST, owner: Made, name: str) -> Term:
    """Return `owner.name`.

    Raises:
        CompileError: there is no such member.
    """
    names = [one.name for one in owner.shape.members]
    if name not in names:
        has = did_you_mean(name, names, f"it has {listed(names)}")
        raise ctx.error(node, f"{describe(owner)} has no member {name!r}", has)
    return owner.items[names.index(name)]


def leaves(ctx: Context, node: ast.AST, term: Term) -> list[tuple[str, Term]] | None:
    """Return name and term of each number, pointer and string in a struct or array, nested ones by dotted names.

    None for a term that is one of these itself, or none at all. Bit-fields are among them; of a union of the probed
    program all members are.

    Raises:
        CompileError: there are too many, or one can't be read.
    """
    if not _is_whole(term) or isinstance(term, Items):
        return None
    found: list[tuple[str, Term]] = []
    for name, leaf in _leaves(ctx, node, term, ""):
        found.append((name.removeprefix("."), leaf))
        if len(found) > MOST_FIELDS:
            raise ctx.error(node, f"{describe(term)} has more than {MOST_FIELDS} fields", "name those that are wanted")
    return found


def rebuilt(spec: object, terms: Sequence[Term]) -> Term:
    """Return what a map of values of the type *spec* gives, of its parts as `leaves` has them."""
    following = iter(terms)
    parts = [_rebuilt(part, following) for part in (spec if isinstance(spec, tuple) else (spec,))]
    return parts[0] if len(parts) == 1 else Items(tuple(parts))


def _rebuilt(kind: object, following: Iterator[Term]) -> Term:
    shape = shape_of(kind)
    if shape is not None:
        return Made(shape, tuple(_rebuilt(one.type, following) for one in shape.members))
    if isinstance(kind, ArrayOf) and kind.element != char:
        return Items(tuple(_rebuilt(kind.element, following) for _ in range(kind.count)))
    return next(following)


def _is_whole(term: Term) -> bool:
    return isinstance(term, Made | Items) or (isinstance(term, Pointer) and term.embedded and not texts.is_text(term))


def _leaves(ctx: Context, node: ast.AST, term: Term, name: str) -> Iterator[tuple[str, Term]]:
    if isinstance(term, Made):
        for one, item in zip(term.shape.members, term.items, strict=True):
            yield from _leaves(ctx, node, item, f"{name}.{one.name}")
    elif isinstance(term, Items):
        for index, item in enumerate(term.items):
            yield from _leaves(ctx, node, item, f"{name}[{index}]")
    elif not _is_whole(term):
        yield name, term
    elif isinstance(term, Pointer) and term.count is not None:
        for index in range(min(term.count, MOST_FIELDS + 1)):
            yield from _leaves(ctx, node, pointers.element(ctx, node, term, Constant(index), node), f"{name}[{index}]")
    elif isinstance(term, Pointer) and isinstance(term.target, Struct):
        for one_name in ctx.own.member_names(term.target):
            found = pointers.member_of(ctx, node, term.target, one_name)
            if found is not None and _is_shown(found.type):
                yield from _leaves(ctx, node, pointers.field(ctx, node, term, one_name), f"{name}.{one_name}")


def _is_shown(ctype: object) -> bool:
    inner = ctype
    while isinstance(inner, Array):
        inner = inner.element
    return isinstance(inner, Struct) or pointers.is_readable(inner)  # type: ignore[arg-type]
