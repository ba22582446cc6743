"""What the builtins of the handler language become: a maker for each row of `model.builtins`."""

from __future__ import annotations

from errno import errorcode

from kprobes.arch.registers import registers
from kprobes.compiler.front import casts, events, globalvars, integers, pointers, strings, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.terms import (
    Constant,
    Everything,
    Items,
    Map,
    Nothing,
    Number,
    Pointer,
    Term,
    Text,
    Word,
    describe,
    integer,
    limits,
    widened,
)
from kprobes.compiler.ir.nodes import I64, U32, U64, BuiltinText, IntType, WriteContext
from kprobes.frozen import replace
from kprobes.model.builtins import BUILTINS, TABLE, Builtin
from kprobes.model.containers import Array
from kprobes.model.ctype import Struct, Void
from kprobes.model.layout import Field
from kprobes.model.mapspec import COMM_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Callable

    from kprobes.compiler.front.context import Context

    Maker = Callable[[Context, ast.AST, "Given"], Term]

Given = dict[str, tuple[Term, "ast.AST"]]


def make(ctx: Context, node: ast.AST, name: str, given: Given) -> Term:
    """Return what the builtin *name* gives for the arguments *given*.

    Raises:
        CompileError: it has no meaning in such a handler.
    """
    row = BUILTINS[name]
    if row.needs == "on_fault" and not ctx.around.on_fault:
        raise ctx.error(node, f"{name}() without a fault", "write @uprobe(..., on_fault=True), in a process")
    if row.needs == "unsafe":
        _require_unsafe(ctx, node, f"{name}()")
    maker = MAKERS.get(name)
    return maker(ctx, node, given) if maker else _world(ctx, node, row)


def _world(ctx: Context, node: ast.AST, row: Builtin) -> Term:
    """Return the term of an integer of the world that the IR has a builtin for."""
    place, result = ctx.place(node), integer_type(row.result)
    value = ctx.build.convert(place, ctx.build.builtin(place, row.name, result), widened(result))
    return integer(value, row.shown or "uint", result if result.bits < 64 else None)


def integer_type(name: str) -> IntType:
    """Return the type that is called `u32`, `i64` and so on."""
    return IntType(int(name[1:]), signed=name[0] == "i")


def _comm(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    place = ctx.place(node)
    return Text(COMM_SIZE, None, lambda slot: BuiltinText(place, slot, "comm"))


def _task(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    struct = ctx.around.types.struct("task_struct")
    value = ctx.build.builtin(ctx.place(node), "task", U64)
    return Pointer(value, 0, struct if isinstance(struct, Struct) else Void(), "kernel")


def _in_own_namespace(name: str, *, leader: bool) -> Maker:
    """Return the maker of an id in the thread's own pid namespace. Source: linux/pid.h, `struct pid`: `numbers` has an
    id for each level of namespaces, its own the last."""

    def make_id(ctx: Context, node: ast.AST, given: Given) -> Term:
        if ctx.around.steps or ctx.around.on_fault:  # inside of a process that is what it is told itself
            return _world(ctx, node, BUILTINS[name])
        thread = _task(ctx, node, given)
        assert isinstance(thread, Pointer)
        if not isinstance(thread.target, Struct):
            raise ctx.error(node, "this kernel's types don't tell of namespaces here", f"take {name}, of the host")
        if leader:
            thread = _pointer_in(ctx, node, thread, "group_leader")
        ids = _pointer_in(ctx, node, thread, "thread_pid")
        numbers = _pointer_in(ctx, node, ids, "numbers")
        level = pointers.field(ctx, node, ids, "level")
        # Declared as an array of one or of any number, and as long as there are levels.
        last = pointers.moved(ctx, node, Pointer(numbers.base, numbers.offset, numbers.target, "kernel"), level, node)
        return pointers.field(ctx, node, last, "nr")

    return make_id


def _pointer_in(ctx: Context, node: ast.AST, owner: Pointer, name: str) -> Pointer:
    found = pointers.field(ctx, node, owner, name)
    assert isinstance(found, Pointer)
    return found


def _function(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    if ctx.around.kind == "tracepoint":
        raise ctx.error(node, "a tracepoint is no function", "its name is that of the probe")
    return integer(ctx.build.context(ctx.place(node), "function"), "symbol")


def _retval(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    return ctx.parameters.returned(node)


def _arg(ctx: Context, node: ast.AST, given: Given) -> Term:
    term, where = given["number"]
    if not isinstance(term, Constant):
        raise ctx.error(where, "arg() takes a literal", "arg(1) is the first argument")
    if not 1 <= term.value <= 128:
        raise ctx.error(where, f"there is no argument {term.value}", "arg(1) is the first argument")
    return ctx.parameters.by_number(node, term.value - 1)


def _size(ctx: Context, given: Given) -> int:
    term, where = given.get("size", (Constant(texts.DEFAULT_SIZE), None))
    if where is None:
        return texts.DEFAULT_SIZE
    if not isinstance(term, Constant):
        raise ctx.error(where, "the size of a string must be a literal", "string(p, 64)")
    if not 2 <= term.value <= texts.LARGEST:
        raise ctx.error(where, f"a string of {term.value} bytes", f"sizes go from 2 to {texts.LARGEST}, with the NUL")
    return term.value


def string(ctx: Context, node: ast.AST, given: Given) -> Term:
    """Return the string at an address."""
    return _string(ctx, node, given, user=False)


def user_string(ctx: Context, node: ast.AST, given: Given) -> Term:
    """Return the string at an address of the process."""
    return _string(ctx, node, given, user=True)


def _string(ctx: Context, node: ast.AST, given: Given, *, user: bool) -> Term:
    size = _size(ctx, given)
    term = given["address"][0]
    if isinstance(term, Pointer) and term.count is not None and "size" not in given:
        size = min(max(term.count, 2), texts.LARGEST) if term.count else size
    return texts.string_at(ctx, node, term, size, user=user)


def cast(ctx: Context, node: ast.AST, given: Given) -> Term:
    """Return a value as another type."""
    return casts.cast(ctx, node, _number_or_pointer(ctx, given["value"]), given["ctype"])


def _deref(ctx: Context, node: ast.AST, given: Given) -> Term:
    ctype = casts.type_of(ctx, given["ctype"])[0] if "ctype" in given else None
    return casts.deref(ctx, node, _number_or_pointer(ctx, given["address"]), ctype)


def _sizeof(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    return casts.size_of(ctx, given["ctype"])


def _offsetof(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    return Constant(casts.offset_of(ctx, given["ctype"], given["member"])[1])


def _container_of(ctx: Context, node: ast.AST, given: Given) -> Term:
    struct, offset = casts.offset_of(ctx, given["ctype"], given["member"])
    return casts.container_of(ctx, node, _number_or_pointer(ctx, given["address"]), struct, offset)


def _flags(ctx: Context, node: ast.AST, given: Given) -> Term:
    number = integers.number(ctx, node, _number_or_pointer(ctx, given["value"]))
    return casts.named_values(ctx, number, given["names"])


def _number_or_pointer(ctx: Context, argument: tuple[Term, ast.AST]) -> Term:
    term, where = argument
    if not isinstance(term, Number | Pointer | Constant | Nothing):
        raise ctx.error(where, f"an integer or a pointer is wanted here, this is {describe(term)}", advice(term))
    return term


def _hex(ctx: Context, node: ast.AST, given: Given) -> Term:
    term = _number_or_pointer(ctx, given["value"])
    if isinstance(term, Constant):
        return Constant(term.value, "hex")
    found = integers.number(ctx, node, term)
    return Number(found.value, "hex", found.low, found.high, found.store)


# Those that functions of the kernel return besides what programs see.
_KERNEL_ERRORS = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    517: "EPROBE_DEFER",
    524: "ENOTSUPP",
}
_ERRORS = tuple(sorted((-number, name) for number, name in {**errorcode, **_KERNEL_ERRORS}.items()))


def _errname(ctx: Context, node: ast.AST, given: Given) -> Term:
    number = integers.number(ctx, node, _number_or_pointer(ctx, given["value"]))
    return replace(number, enum=ctx.own.of_names(Field("", "int", 0, 8, _ERRORS)))


def _ipv4(ctx: Context, node: ast.AST, given: Given) -> Term:
    number = integers.number(ctx, node, _number_or_pointer(ctx, given["address"]))
    return integer(ctx.build.convert(ctx.place(node), number.value, I64), "ipv4", U32)


def _symbol(ctx: Context, node: ast.AST, given: Given) -> Term:
    term = _number_or_pointer(ctx, given["address"])
    return integer(integers.address(ctx, node, term), "symbol")


def _int(ctx: Context, node: ast.AST, given: Given) -> Term:
    term = _number_or_pointer(ctx, given["value"])
    if isinstance(term, Constant):
        return Constant(term.value)
    if isinstance(term, Nothing):
        raise ctx.error(given["value"][1], "int() of None", "None is the null pointer; the number is 0")
    found = integers.number(ctx, node, term)
    if found.value.type == U64:
        return integer(ctx.build.convert(ctx.place(node), found.value, I64))
    return Number(found.value, "int", found.low, found.high, found.store if found.kind in ("int", "uint") else None)


def _bool(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    return ctx.truth(given["value"][1], given["value"][0])


def _abs(ctx: Context, node: ast.AST, given: Given) -> Term:
    term, where = given["value"]
    if isinstance(term, Constant):
        return Constant(abs(term.value))
    found = integers.number(ctx, where, term)
    if found.low >= 0:
        return found
    negative = integers.compare(ctx, node, "lt", found, Constant(0))
    assert isinstance(negative, Number)
    return ctx.select(node, negative.value, lambda: integers.negative(ctx, node, found), lambda: found)


def _len(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    term, where = given["value"]
    if isinstance(term, Items):
        return Constant(len(term.items))
    if texts.is_text(term):
        return strings.length(ctx, where, term)
    if isinstance(term, Pointer) and term.count is not None:
        return Constant(term.count)
    if isinstance(term, Map) and isinstance(term.spec, Array):
        return Constant(term.spec.length)
    hint = "len() knows strings, tuples, Arrays and C arrays"
    raise ctx.error(where, f"len() of {describe(term)} can't be told", hint)


def _swapped(bits: int) -> Maker:
    """Return the maker of `ntohs` and its like: the lower *bits* with their bytes in the other order."""

    def swap(ctx: Context, node: ast.AST, given: Given) -> Term:
        term, where = given["value"]
        if isinstance(term, Constant):
            return Constant(int.from_bytes((term.value % (1 << bits)).to_bytes(bits // 8, "little"), "big"))
        place, build = ctx.place(node), ctx.build
        value = integers.wide(ctx, where, term, U64)
        parts = []
        for byte in range(bits // 8):
            one = build.binary(place, "and", value, build.const(place, 0xFF << 8 * byte, U64))
            by = bits - 8 - 16 * byte
            op = "shl" if by >= 0 else "shr"
            parts.append(build.binary(place, op, one, build.const(place, abs(by), U64)))
        whole = parts[0]
        for part in parts[1:]:
            whole = build.binary(place, "or", whole, part)
        return integer(build.convert(place, whole, I64), "uint", IntType(bits, signed=False))

    return swap


def _least(ctx: Context, node: ast.AST, given: Given) -> Term:
    return _extreme(ctx, node, given, "lt")


def _most(ctx: Context, node: ast.AST, given: Given) -> Term:
    return _extreme(ctx, node, given, "gt")


def _extreme(ctx: Context, node: ast.AST, given: Given, op: str) -> Term:
    arguments = list(given.values())
    if len(arguments) == 1 and isinstance(arguments[0][0], Items):
        arguments = [(item, arguments[0][1]) for item in arguments[0][0].items]
    if len(arguments) < 2:
        raise ctx.error(node, "min() and max() compare at least two values", "min(a, b), max(a, b, c)")
    best = _plain(ctx, *arguments[0])
    for argument in arguments[1:]:
        best = _better(ctx, node, best, _plain(ctx, *argument), op)
    return best


def _plain(ctx: Context, term: Term, where: ast.AST) -> Number | Constant:
    return term if isinstance(term, Constant) else integers.number(ctx, where, term)


def _better(
    ctx: Context, node: ast.AST, left: Number | Constant, right: Number | Constant, op: str
) -> Number | Constant:
    wins = integers.compare(ctx, node, op, right, left)
    if isinstance(wins, Constant):
        return right if wins.value else left
    assert isinstance(wins, Number)
    ranges = [(t.value, t.value) if isinstance(t, Constant) else (t.low, t.high) for t in (left, right)]
    pick = min if op == "lt" else max
    low, high = pick(ranges[0][0], ranges[1][0]), pick(ranges[0][1], ranges[1][1])
    if op == "lt" and isinstance(left, Number) and isinstance(right, Number) and left.value.type != right.value.type:
        # The lesser of an i64 and a u64 always fits into i64.
        return _picked(ctx, node, wins, _int_of(ctx, node, left), _int_of(ctx, node, right), (low, high))
    return _picked(ctx, node, wins, left, right, (low, high))


def _int_of(ctx: Context, node: ast.AST, number: Number) -> Number:
    return integer(ctx.build.convert(ctx.place(node), number.value, I64))


def _picked(
    ctx: Context, node: ast.AST, wins: Number, left: Number | Constant, right: Number | Constant, known: tuple[int, int]
) -> Number:
    chosen = ctx.select(node, wins.value, lambda: right, lambda: left)
    assert isinstance(chosen, Number)
    low, high = limits(chosen.value.type)
    if low <= known[0] and known[1] <= high:
        low, high = known
    return Number(chosen.value, chosen.kind, low, high, chosen.store)


def _register(role: str, shown: str = "hex") -> Maker:
    """Return the maker of what is in the register with a *role*: `instruction_pointer(regs)` and its like."""

    def make_register(ctx: Context, node: ast.AST, given: Given) -> Term:
        _require_registers(ctx, given)
        name: str = getattr(registers(ctx.around.arch), role)
        return integer(ctx.build.context(ctx.place(node), "register", name=name), shown)

    return make_register


def _require_registers(ctx: Context, given: Given) -> None:
    term, where = given["regs"]
    if term != Word("regs"):
        raise ctx.error(where, f"the registers are wanted here, this is {describe(term)}", "write regs")
    if ctx.around.kind == "tracepoint":
        raise ctx.error(where, "a tracepoint has no registers", "take the fields of its record as parameters")


def _register_argument(ctx: Context, node: ast.AST, given: Given) -> Term:
    _require_registers(ctx, given)
    term, where = given["number"]
    table = registers(ctx.around.arch)
    names = table.arguments if ctx.around.user else table.kernel_arguments
    if not isinstance(term, Constant) or not 0 <= term.value < len(names):
        what = f"the number of a register argument is 0 to {len(names) - 1}"
        raise ctx.error(where, what, f"arg({len(names) + 1}) reads those on the stack")
    return integer(ctx.build.context(ctx.place(node), "register", name=names[term.value]), "uint")


def _dump_stack(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    fields = [(name, make(ctx, node, name, {})) for name in ("cpu", "tid", "comm", "stack")]
    return events.send(ctx, node, fields, "dump_stack")


def _skip(ctx: Context, node: ast.AST, given: Given) -> Term:  # noqa: ARG001
    ctx.build.add(WriteContext(ctx.place(node), "skip"))
    return Nothing()


def _return_from_function(ctx: Context, node: ast.AST, given: Given) -> Term:
    if not ctx.around.at_entry:
        raise ctx.error(
            node,
            "return_from_function() needs a probe at the entry: further in, its frame is not known",
            "use skip(), or set regs.ip and regs.sp",
        )
    term, where = given.get("value", (Constant(0), node))
    value = integers.address(ctx, where, _number_or_pointer(ctx, (term, where)))
    ctx.build.add(WriteContext(ctx.place(node), "return", value))
    return Nothing()


def _require_unsafe(ctx: Context, node: ast.AST, what: str) -> None:
    if not ctx.around.unsafe:
        raise ctx.error(node, f"{what} changes the probed program", "allow it: unsafe=True on the probe, or --unsafe")
    if ctx.build.part == "exit":
        late = "at the return of the function" if ctx.around.returns else "behind the instruction"
        raise ctx.error(node, f"{what} comes too late {late}", "do it before the yield, or in a probe of the entry")


MAKERS: dict[str, Maker] = {
    "comm": _comm,
    "ns_pid": _in_own_namespace("pid", leader=True),
    "ns_tid": _in_own_namespace("tid", leader=False),
    "task": _task,
    "current": _task,
    "function": _function,
    "retval": _retval,
    "arg": _arg,
    "args": lambda ctx, node, given: Everything(),  # noqa: ARG005 - the face of all makers
    "string": string,
    "user_string": user_string,
    "cast": cast,
    "sizeof": _sizeof,
    "offsetof": _offsetof,
    "container_of": _container_of,
    "var": globalvars.variable,
    "percpu": globalvars.per_cpu,
    "address_of": globalvars.address_of,
    "flags": _flags,
    "deref": _deref,
    "errname": _errname,
    "hex": _hex,
    "ipv4": _ipv4,
    "symbol": _symbol,
    "int": _int,
    "bool": _bool,
    "abs": _abs,
    "len": _len,
    "ntohs": _swapped(16),
    "htons": _swapped(16),
    "ntohl": _swapped(32),
    "htonl": _swapped(32),
    "min": _least,
    "max": _most,
    "instruction_pointer": _register("instruction_pointer"),
    "kernel_stack_pointer": _register("stack_pointer"),
    "regs_return_value": _register("result", "uint"),
    "regs_get_kernel_argument": _register_argument,
    "dump_stack": _dump_stack,
    "jprobe_return": lambda ctx, node, given: Nothing(),  # noqa: ARG005
    "skip": _skip,
    "return_from_function": _return_from_function,
}

# Words that `expressions`, `loops` and `calls` carry out themselves, since they look at the text of their arguments.
SPECIAL = frozenset({"emit", "log", "printk", "pr_info", "range", "regs"})
# Words of Python's own that a handler may use; the others of its builtins are refused.
PYTHON = frozenset(row.name for row in TABLE if row.python)
