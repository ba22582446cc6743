"""`p` and `ri` of registered handlers: the probe, and one call of the probed function with what is kept for it.

The fields of `ri.data` are variables of the whole handler: what the entry handler sets is kept for the call as locals
are that live across a `yield`.
"""

from __future__ import annotations

from kprobes.arch.registers import registers
from kprobes.compiler.front import builtins, structs, texts, variables
from kprobes.compiler.front.context import TypeUnknownError
from kprobes.compiler.front.terms import Constant, Literal, Outside, Term, describe, integer
from kprobes.compiler.front.text import did_you_mean, listed
from kprobes.compiler.ir.nodes import U64
from kprobes.model.registered import CallData, Instance, Registered
from kprobes.model.structs import shape_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context
    from kprobes.compiler.front.variables import Variable

THINGS = (Registered, Instance, CallData)
_OF_PROBE = ("addr", "symbol_name", "offset")
_OF_CALL = ("data", "ret_addr", "rp", "task")
_KEY = ".data."  # no local begins with a dot
_NUMBER_SIZE = 8


def attribute(ctx: Context, node: ast.Attribute, owner: Outside, name: str) -> Term:
    """Return `p.name`, `ri.name` or `ri.data.name`.

    Raises:
        CompileError: there is nothing of that name, or it isn't known here.
    """
    thing = owner.thing
    if isinstance(thing, CallData):
        return _read(ctx, node, thing, name)
    if isinstance(thing, Instance):
        return _of_call(ctx, node, thing, (owner.path, name))
    assert isinstance(thing, Registered)
    if name == "kp":  # of a return probe, whose place is told by its kp
        return owner
    if name == "addr":
        return _address(ctx, node, thing)
    if name not in _OF_PROBE:
        raise _no_field(ctx, node, owner.path, name, _OF_PROBE)
    return Literal(thing.symbol_name) if name == "symbol_name" else Constant(thing.offset)


def _address(ctx: Context, node: ast.AST, probe: Registered) -> Term:
    place, build = ctx.place(node), ctx.build
    if not probe.behind:
        return integer(ctx.parameters.probed(node), "hex")
    here = build.context(place, "function")
    return integer(build.binary(place, "sub", here, build.const(place, probe.behind, U64)), "hex")


def _of_call(ctx: Context, node: ast.Attribute, call: Instance, named: tuple[str, str]) -> Term:
    path, name = named
    if name == "rp":
        return Outside(call.rp, f"{path}.rp")
    if name == "data":
        return Outside(CallData(call), f"{path}.data")
    if name == "task":
        return builtins.make(ctx, node, "tid" if ctx.around.user else "task", {})
    if name != "ret_addr":
        raise _no_field(ctx, node, path, name, _OF_CALL)
    place, build = ctx.place(node), ctx.build
    if not call.returns_to:
        return integer(build.load(place, U64, build.context(place, "register", name="sp"), 0, "user"), "hex")
    if call.returns_to not in registers(ctx.around.arch).offsets:
        what = "this kernel doesn't tell the return address"
        raise ctx.error(node, what, "kernels since 5.16 do; stack() has the callers")
    if build.part == "entry":
        what = "the return address is not known at the entry here: the kernel has replaced it"
        raise ctx.error(node, what, "read it in the return handler")
    return integer(build.context(place, "register", name=call.returns_to), "hex")


def _no_field(ctx: Context, node: ast.AST, path: str, name: str, known: tuple[str, ...]) -> Exception:
    return ctx.error(node, f"{path} has no {name!r}", did_you_mean(name, known, f"it has {listed(known)}"))


# What is kept for a call.


def _read(ctx: Context, node: ast.Attribute, data: CallData, name: str) -> Term:
    _check(ctx, node, data, name)
    known = ctx.types.get(_KEY + name)
    if known is None:
        if ctx.last_try:
            raise ctx.error(
                node, f"data.{name} is read and never set", f"the entry handler sets it: ri.data.{name} = 0"
            )
        ctx.settled = False
        raise TypeUnknownError(name)
    return variables.read(ctx, node, _KEY + name, known)


def _check(ctx: Context, node: ast.AST, data: CallData, name: str) -> None:
    """Refuse a field that there is none of."""
    shape = shape_of(data.of.data)
    if shape is not None and name not in [one.name for one in shape.members]:
        names = [one.name for one in shape.members]
        has = did_you_mean(name, names, f"it has {listed(names)}")
        raise ctx.error(node, f"{shape.name} has no member {name!r}", has)
    if shape is None and not data.of.data:
        raise ctx.error(node, "there is no room for ri.data", "say how much: Kretprobe(..., data_size=8)")


def store(ctx: Context, target: ast.Attribute, owner: Outside, term: Term, value: ast.AST) -> None:
    """Carry out `ri.data.name = term`; *value* is where the term comes from.

    Raises:
        CompileError: nothing of that name can be set, or there is no room for it.
    """
    data, name = owner.thing, target.attr
    if not isinstance(data, CallData):
        raise ctx.error(target, f"{owner.path}.{name} can't be set", "what is kept for a call is ri.data")
    _check(ctx, target, data, name)
    shape = shape_of(data.of.data)
    if shape is not None:
        member = next(one for one in shape.members if one.name == name)
        term = structs.as_member(ctx, value, member, texts.snapshot(ctx, value, term))
    ctx.keep(value, _KEY + name, name, term)
    if shape is None:
        _require_room(ctx, target, data)


def _require_room(ctx: Context, node: ast.AST, data: CallData) -> None:
    fields = {key: kind for key, kind in ctx.types.items() if key.startswith(_KEY)}
    taken = sum(map(_size_of, fields.values()))
    room = data.of.data
    assert isinstance(room, int)
    if taken > room:
        names = listed(key.removeprefix(_KEY) for key in fields)
        hint = f"data_size={taken}, or a @struct class: data_size=MyData"
        raise ctx.error(node, f"{names} take {taken} bytes, and data_size is {room}", hint)


def _size_of(kind: Variable) -> int:
    if isinstance(kind, variables.TextVariable):
        return kind.size
    if isinstance(kind, variables.ItemsVariable):
        return sum(map(_size_of, kind.items))
    return _NUMBER_SIZE


def returned(ctx: Context, node: ast.Return, term: Term) -> None:
    """Check what a registered handler returns.

    Raises:
        CompileError: it isn't 0 where only that is possible.
    """
    source = ctx.frames[0].text.source
    reason = source.calling.only_0 if source.calling else ""
    if reason and not (isinstance(term, Constant) and term.value == 0):
        what = "something" if not isinstance(term, Constant) else str(term.value)
        where = node.value or node
        if not isinstance(term, Constant):
            what = describe(term)
        raise ctx.error(where, f"this handler returns {what}: {reason.partition('; ')[0]}", reason.partition("; ")[2])
