"""Types that a handler's own annotations give its parameters and its result.

    def h(path: cstr, flags: u32, file: "struct file *", key: Header) -> i32

Where the probed function has a prototype they override its types by name. Where it has none they are the prototype: the
n-th parameter is the n-th argument. Annotations that say nothing about C (`int`, `Any`, `-> None`) change nothing.
"""

from __future__ import annotations

import ast

from kprobes.compiler.front.casts import own_type, type_named
from kprobes.frozen import replace
from kprobes.model import structs
from kprobes.model.ctype import Function, Int, Parameter, Pointer, Struct
from kprobes.model.cwords import WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.context import Context
    from kprobes.model.ctype import CType

LONG = Int("long", 8, True)
# What stands in the place of arguments in a handler's parameters, and is none.
APART = frozenset({"regs", "retval"})
_SILENT_MODULES = frozenset({"typing", "collections.abc", "types"})
_GENERATORS = ("Iterator", "Generator", "Iterable")


def parameters_of(definition: ast.FunctionDef) -> list[ast.arg]:
    """Return the parameters of a handler that stand for arguments or fields."""
    spec = definition.args
    return [one for one in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs) if one.arg not in APART]


def annotated(ctx: Context, definition: ast.FunctionDef, prototype: Function | None) -> Function | None:
    """Return *prototype* with the types that the annotations of *definition* give; None where nothing tells any.

    Raises:
        CompileError: an annotation names no type of C.
    """
    given = {one.arg: _given(ctx, one, prototype) for one in parameters_of(definition)}
    returns = ctype_of(ctx, definition.returns) if definition.returns is not None else None
    if prototype is not None:
        changed = tuple(replace(one, type=given.get(one.name) or one.type) for one in prototype.parameters)
        return replace(prototype, parameters=changed, returns=returns or prototype.returns)
    if not any(given.values()) and returns is None:
        return None
    for one in parameters_of(definition):
        if given[one.arg] is None:
            raise ctx.error(one, f"nothing tells what {one.arg!r} is", f"annotate it too: {one.arg}: u64")
    if definition.args.kwonlyargs and any(one.annotation for one in definition.args.kwonlyargs):
        raise ctx.error(definition.args.kwonlyargs[0], "which argument this is can't be told", "take it in its place")
    own = tuple(Parameter(name, ctype) for name, ctype in given.items() if ctype is not None)
    return Function("", own, returns or LONG, variadic=True)


def _given(ctx: Context, node: ast.arg, prototype: Function | None) -> CType | None:
    if node.annotation is None:
        return None
    if prototype is None and isinstance(node.annotation, ast.Name) and node.annotation.id == "int":
        return LONG
    return ctype_of(ctx, node.annotation)


def ctype_of(ctx: Context, node: ast.expr) -> CType | None:
    """Return the C type that the annotation *node* names, None where it says nothing about C.

    Raises:
        CompileError: it names none.
    """
    kind = structs.type_named(ast.unparse(node), ctx.text.source.names)
    if kind is str:
        return WORDS["cstr"].type
    if isinstance(kind, str):
        if kind.partition("[")[0].rpartition(".")[2] in _GENERATORS:
            return None
        ctype, user = type_named(ctx, node, kind)
        return replace(ctype, user=True) if user and isinstance(ctype, Pointer) else ctype
    if kind is None or kind in (int, object) or _is_silent(kind):
        return None
    ctype = own_type(ctx, node, kind)
    return Pointer(ctype) if isinstance(ctype, Struct) else ctype


def _is_silent(kind: object) -> bool:
    return getattr(kind, "__module__", type(kind).__module__) in _SILENT_MODULES and not structs.is_enum(kind)
