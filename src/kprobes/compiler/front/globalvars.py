"""Global variables of the probed program or kernel: `var("jiffies")`, `percpu("runqueues").nr_running`."""

from __future__ import annotations

from kprobes.compiler.front import casts, integers, pointers
from kprobes.compiler.front.terms import Constant, Literal, Nothing, Number, Pointer, Term, describe
from kprobes.compiler.ir.nodes import U64, IntType, Value
from kprobes.errors import KprobesError
from kprobes.model.ctype import Void

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.builtins import Given
    from kprobes.compiler.front.context import Context
    from kprobes.model.ctype import CType

# What the kernel adds to the address of a per-CPU variable, by CPU, and how many CPUs there can be.
OFFSETS, CPUS = "__per_cpu_offset", "nr_cpu_ids"
U32 = IntType(32, signed=False)


def variable(ctx: Context, node: ast.AST, given: Given) -> Term:
    """Return the value of a global variable: a number, a pointer, or the struct or array there.

    Raises:
        CompileError: there is none, or its type is not known.
    """
    name = _name(ctx, given)
    ctype = _type(ctx, given, name)
    value = _address(ctx, given["name"][1], name)
    return pointers.read(ctx, node, Pointer(value, 0, Void(), _space(ctx)), 0, ctype)


def address_of(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001 - the face of all makers
    """Return a pointer to a function or global variable."""
    name = _name(ctx, given)
    value = _address(ctx, given["name"][1], name)
    ctype = ctx.own.variable(name.rpartition(":")[2])
    return Pointer(value, 0, ctype if ctype is not None else Void(), _space(ctx))


def per_cpu(ctx: Context, node: ast.AST, given: Given) -> Term:
    """Return the value of a per-CPU variable, of this CPU or another one. Of one that can't be, it is like a null
    pointer.

    Raises:
        CompileError: there is none, or its type is not known.
    """
    if ctx.around.user:
        raise ctx.error(node, "a program has no per-CPU variables", "they are the kernel's: probe it with @kprobe")
    name = _name(ctx, given)
    ctype = _type(ctx, given, name)
    where = given["name"][1]
    symbol, table = _address(ctx, where, name), _address(ctx, where, OFFSETS)
    place, build = ctx.place(node), ctx.build

    def at(number: Value) -> Pointer:
        scaled = build.binary(place, "mul", number, build.const(place, 8, U64))
        offset = build.load(place, U64, build.binary(place, "add", table, scaled), 0, "kernel")
        return Pointer(build.binary(place, "add", offset, symbol), 0, Void(), "kernel")

    if "cpu" not in given:
        own = build.convert(place, build.builtin(place, "cpu", U32), U64)
        return pointers.read(ctx, node, at(own), 0, ctype)
    term, cpu_node = given["cpu"]
    if not isinstance(term, Number | Constant):
        raise ctx.error(cpu_node, f"a CPU is a number, this is {describe(term)}", 'percpu("runqueues", cpu=0)')
    number = integers.wide(ctx, cpu_node, term, U64)
    count = build.convert(place, build.load(place, U32, _address(ctx, where, CPUS), 0, "kernel"), U64)
    found = ctx.select(node, build.compare(place, "lt", number, count), lambda: at(number), Nothing)
    assert isinstance(found, Pointer)
    return pointers.read(ctx, node, found, 0, ctype)


def _name(ctx: Context, given: Given) -> str:
    term, where = given["name"]
    if not isinstance(term, Literal) or not term.text:
        raise ctx.error(where, f"a symbol is named by text, this is {describe(term)}", 'write var("jiffies")')
    return term.text


def _type(ctx: Context, given: Given, name: str) -> CType:
    if "ctype" in given:
        return casts.type_of(ctx, given["ctype"])[0]
    found = ctx.own.variable(name.rpartition(":")[2])
    if found is None:
        hint = f'say it: var("{name}", "u64"), var("{name}", "struct x")'
        raise ctx.error(given["name"][1], f"nothing tells the type of {name}", hint)
    return found


def _address(ctx: Context, node: ast.AST, name: str) -> Value:
    variables = ctx.around.variables
    if variables is None:
        raise ctx.error(node, f"where {name!r} lies is not known here", "this target has no table of symbols")
    try:
        place = variables.find(name)
    except KprobesError as error:
        raise ctx.error(node, error.what, error.hint or "name a symbol of the probed program") from None
    value = ctx.build.const(ctx.place(node), place.address, U64)
    if not place.relative:
        return value
    return ctx.build.binary(ctx.place(node), "add", ctx.parameters.probed(node), value)


def _space(ctx: Context) -> str:
    return "user" if ctx.around.user else "kernel"
