"""Calls and words of the handler language in C: builtins and methods of strings."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kprobes.compiler.front import names, texts
from kprobes.compiler.front.terms import I64_MAX, I64_MIN, U64_MAX, Constant, Literal, Map, Number, Pointer
from kprobes.compiler.ir.nodes import U64
from kprobes.export import constants, expressions, functions, maps, memory, strings
from kprobes.export.cnaming import c_string
from kprobes.export.fetching import argument_in_c
from kprobes.export.headers import integer_text, pointer_text
from kprobes.export.unit import AND, ATOM, UNARY, Expression, Unit
from kprobes.model.ctype import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

# Words without parameters: their C, the header that it takes, and whether the type is signed.
_WORLD: dict[str, tuple[str, str, bool]] = {
    "now": ("ktime_get_mono_fast_ns()", "linux/timekeeping.h", False),
    "pid": ("(s64)current->tgid", "linux/sched.h", True),
    "tid": ("(s64)current->pid", "linux/sched.h", True),
    "host_pid": ("(s64)current->tgid", "linux/sched.h", True),
    "host_tid": ("(s64)current->pid", "linux/sched.h", True),
    "ns_pid": ("(s64)task_tgid_vnr(current)", "linux/sched.h", True),
    "ns_tid": ("(s64)task_pid_vnr(current)", "linux/sched.h", True),
    "uid": ("(s64)from_kuid(&init_user_ns, current_uid())", "linux/cred.h", True),
    "gid": ("(s64)from_kgid(&init_user_ns, current_gid())", "linux/cred.h", True),
    "cpu": ("(s64)raw_smp_processor_id()", "linux/smp.h", True),
}
_SHOWING = frozenset({"hex", "symbol", "errname", "ipv4", "flags"})
_SWAPS = {"ntohs": "__be16", "htons": "__u16", "ntohl": "__be32", "htonl": "__u32"}


def word_of(unit: Unit, node: ast.expr) -> str:
    """Return the builtin that *node* names, empty if none."""
    if isinstance(node, ast.Call):
        node = node.func
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    if isinstance(node, ast.Attribute) and isinstance(unit.seen.terms.get(node.value), Pointer | Map):
        return ""  # a field
    if not name or (isinstance(node, ast.Name) and name in unit.locals):
        return ""
    given = unit.seen.text.source.names
    return names.word_of(given[name]) if isinstance(node, ast.Name) and name in given else name


def is_word(unit: Unit, node: ast.expr, name: str) -> bool:
    """Return whether *node* is the word *name*, called or bare."""
    return word_of(unit, node) == name and not (isinstance(node, ast.Call) and node.args)


def word(unit: Unit, node: ast.expr, shown: str) -> Expression:
    """Return a word without parameters."""
    name = word_of(unit, node) or shown
    if name in _WORLD:
        text, header, signed = _WORLD[name]
        unit.include(header)
        return Expression(text, UNARY if text.startswith("(") else ATOM, signed=signed)
    if name in ("task", "current"):
        unit.include("linux/sched.h")
        return Expression("current", pointer=True, signed=False)
    if name == "function":
        unit.context.add("site" if unit.kind in ("entry", "return") else "p")
        return Expression(f"(unsigned long){probed(unit)}", UNARY, signed=False)
    if name == "random":
        unit.include("linux/random.h")
        return Expression("(s64)get_random_u32()", UNARY)
    if name == "retval":
        unit.context.add("regs")
        return _typed(unit, node, "regs_return_value(regs)")
    raise unit.refuse(node, f"{shown}")


def probed(unit: Unit) -> str:
    """Return the address of the probe."""
    return "site->probe.kp.addr" if unit.kind in ("entry", "return") else "p->addr"


def _typed(unit: Unit, node: ast.expr, text: str) -> Expression:
    """Return the word of a register as what *node* is."""
    term = unit.term(node)
    if isinstance(term, Pointer):
        return Expression(memory.pointer_cast(term, text), UNARY, pointer=True, signed=False)
    if isinstance(term, Number):
        return Expression(typed_number(term, text), UNARY, signed=term.value.type != U64)
    raise unit.refuse(node, "a value of this type")


def typed_number(term: Number, text: str) -> str:
    """Return the word *text* cut to the type that *term* has in C, in 64 bits."""
    if term.kind == "bool":
        return f"(bool){text}"
    wide = "u64" if term.value.type == U64 else "s64"
    if term.store is None or term.store.bits == 64:
        return f"({wide}){text}"
    return f"({wide})({integer_text(term.store.bits // 8, signed=term.store.signed)}){text}"


def call(unit: Unit, node: ast.Call) -> Expression:
    """Return what a call gives.

    Raises:
        CompileError: it has no counterpart.
    """
    if node in unit.seen.calls:
        return functions.call(unit, node)
    if constants.is_literal(unit, node):
        found = unit.term(node)
        assert isinstance(found, Constant)
        return constants.literal(found.value)
    if isinstance(node.func, ast.Attribute):
        map_ = maps.named(unit, node.func.value)
        if map_ is not None:
            return maps.method(unit, node, map_, node.func.attr)
        owner = unit.seen.terms.get(node.func.value)
        if owner is not None and (isinstance(owner, Pointer) or texts.is_text(owner)):
            return _method(unit, node, node.func)
    name = word_of(unit, node)
    make = _CALLS.get(name)
    if make is not None:
        return make(unit, node)
    if name in _SHOWING:
        return expressions.value(unit, node.args[0])
    if not node.args and not node.keywords and name:
        return word(unit, node, name)
    shown = ast.unparse(node.func)
    raise unit.refuse(node, f"calling {shown}", "write what it does into the handler")


def _method(unit: Unit, node: ast.Call, function: ast.Attribute) -> Expression:
    """Methods of strings that give a truth value, and `.cast()`."""
    name = function.attr
    if name == "cast":
        return _cast_to(unit, node, function.value)
    if name in ("startswith", "endswith") and len(node.args) == 1:
        wanted = unit.term(node.args[0])
        if not isinstance(wanted, Literal):
            raise unit.refuse(node.args[0], f"{name}() of anything but a literal", "compare with each one by itself")
        unit.include("linux/string.h")
        subject, size = strings.text(unit, function.value), len(wanted.text.encode())
        quoted = c_string(wanted.text)
        if name == "startswith":
            return Expression(f"!strncmp({subject}, {quoted}, {size})", UNARY)
        unit.conditional += 1
        test = f"strlen({subject}) >= {size} && !strcmp({subject} + strlen({subject}) - {size}, {quoted})"
        unit.conditional -= 1
        return Expression(test, AND)
    raise unit.refuse(node, f"the method {name}() here", "give the string a name in a statement of its own")


def _argument(unit: Unit, node: ast.Call) -> Expression:
    index = unit.term(node.args[0])
    assert isinstance(index, Constant)
    if unit.kind == "return":
        raise unit.refuse(node, "arg() behind the yield", "name it before: first = arg(1)")
    unit.context.add("regs")
    return _typed(unit, node, argument_in_c(index.value - 1))


def _int(unit: Unit, node: ast.Call) -> Expression:
    found = expressions.number(unit, node.args[0])
    return found if found.signed else Expression(f"(s64){found.within(UNARY)}", UNARY)


def _bool(unit: Unit, node: ast.Call) -> Expression:
    return Expression(f"!!{expressions.truth(unit, node.args[0]).within(UNARY)}", UNARY)


def _abs(unit: Unit, node: ast.Call) -> Expression:
    unit.include("linux/math.h")
    found = expressions.number(unit, node.args[0])
    return Expression(f"abs({found.text})") if found.signed else found


def _extreme(unit: Unit, node: ast.Call) -> Expression:
    term = unit.term(node)
    parts = [expressions.number(unit, one) for one in node.args]
    signed = {one.signed for one, where in zip(parts, node.args, strict=True) if not constants.is_literal(unit, where)}
    if len(parts) != 2 or len(signed) > 1 or not isinstance(term, Number):
        raise unit.refuse(node, "min() and max() of this", "two integers of one sign: min(int(a), b)")
    unit.include("linux/minmax.h")
    kind = "s64" if signed.pop() else "u64"
    low, high = (I64_MIN, I64_MAX) if kind == "s64" else (0, U64_MAX)
    for one in node.args:
        found = unit.seen.terms.get(one)
        if isinstance(found, Constant) and not low <= found.value <= high:
            raise unit.refuse(one, "min() and max() with a number of another sign", "numbers that fit the other value")
    return Expression(f"{word_of(unit, node)}_t({kind}, {parts[0].text}, {parts[1].text})", signed=kind == "s64")


def _len(unit: Unit, node: ast.Call) -> Expression:
    term = unit.term(node)
    if isinstance(term, Constant):
        return constants.literal(term.value)
    unit.include("linux/string.h")
    return Expression(f"(s64)strlen({strings.text(unit, node.args[0])})", UNARY)


def _swapped(unit: Unit, node: ast.Call) -> Expression:
    name = word_of(unit, node)
    unit.include("linux/in.h")
    given = expressions.number(unit, node.args[0])
    return Expression(f"(s64){name}((__force {_SWAPS[name]}){given.within(UNARY)})", UNARY)


def _deref(unit: Unit, node: ast.Call) -> Expression:
    term = unit.term(node)
    if not isinstance(term, Number):
        raise unit.refuse(node, "deref() of this type", 'an integer: deref(address, "u32")')
    kind = (
        f"{integer_text(term.store.bits // 8, signed=term.store.signed)}"
        if term.store
        else ("u64" if term.value.type == U64 else "s64")
    )
    unit.use("PEEK_ANY")
    source = unit.term(node.args[0])
    space = source.space if isinstance(source, Pointer) else "any"
    reader = {"kernel": "PEEK", "user": "PEEK_USER", "any": "PEEK_ANY"}[space]
    unit.use(reader)
    address = expressions.value(unit, node.args[0]).within(UNARY)
    return Expression(
        f"{reader}(*({kind} *){address}, {unit.fault})", wide=term.store is None, signed=term.value.type != U64
    )


def _cast(unit: Unit, node: ast.Call) -> Expression:
    return _cast_to(unit, node, node.args[0])


def _cast_to(unit: Unit, node: ast.Call, source: ast.expr) -> Expression:
    term = unit.term(node)
    found = expressions.value(unit, source)
    if isinstance(term, Pointer):
        return Expression(memory.pointer_cast(term, found.within(UNARY)), UNARY, pointer=True, signed=False)
    if isinstance(term, Number):
        return Expression(typed_number(term, found.within(UNARY)), UNARY, signed=term.value.type != U64)
    raise unit.refuse(node, "this cast")


def _container_of(unit: Unit, node: ast.Call) -> Expression:
    term, member = unit.term(node), unit.term(node.args[2])
    if not isinstance(term, Pointer) or not isinstance(term.target, Struct) or not isinstance(member, Literal):
        raise unit.refuse(node, "this container_of()", 'container_of(p, "struct x", "member")')
    unit.include("linux/kernel.h")  # its own header is there since 5.16
    memory.need_struct(unit, node, term.target)
    kind = pointer_text(term.target).removesuffix(" *")
    inner = expressions.value(unit, node.args[0]).within(UNARY)
    return Expression(f"container_of((void *){inner}, {kind}, {member.text})", pointer=True, signed=False)


_CALLS: dict[str, Callable[[Unit, ast.Call], Expression]] = {
    "arg": _argument, "int": _int, "bool": _bool, "abs": _abs, "min": _extreme, "max": _extreme, "len": _len,
    "ntohs": _swapped, "htons": _swapped, "ntohl": _swapped, "htonl": _swapped, "deref": _deref, "cast": _cast,
    "container_of": _container_of,
}  # fmt: skip
