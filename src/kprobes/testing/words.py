"""The builtins of handlers in plain Python: for each name, what calls it in a world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.arch.registers import registers
from kprobes.errors import UsageError
from kprobes.model.builtins import BUILTINS
from kprobes.model.ctype import Pointer as CPointer
from kprobes.model.ctype import Struct, sizeof
from kprobes.testing import numbers
from kprobes.testing.everything import Everything
from kprobes.testing.numbers import Shown, Truth, i64, u64
from kprobes.testing.values import Pointer, Text, plain
from kprobes.testing.world import Sent, World, as_value

if TYPE_CHECKING:
    from collections.abc import Callable

    Word = Callable[..., Any]


class Registers:
    """`regs`: reads the frame's registers, and notes what the handler sets."""

    def __init__(self, world: World) -> None:
        object.__setattr__(self, "_world", world)

    def __getattr__(self, name: str) -> Any:
        table = registers(self._world.frame.arch)
        if name not in table.offsets:
            raise AttributeError(f"there is no register {name!r}")
        return Shown(self._world.register(table.canonical(name)))

    def __setattr__(self, name: str, value: Any) -> None:
        self._world.written.append(
            ("register", registers(self._world.frame.arch).canonical(name), int(value) & (1 << 64) - 1)
        )


def word_of(world: World, name: str) -> Any:
    """Return the builtin *name* as what a handler calls, or for `regs` as what it looks into."""
    if name == "regs":
        return Registers(world)
    made = _WORDS.get(name)
    if made is not None:
        return lambda *values, **named: made(world, *values, **named)
    row = BUILTINS[name]
    kind = u64 if row.result == "u64" else i64
    return lambda: kind(world.word(name))


def _string(world: World, address: Any, size: int = 0) -> Text:
    if isinstance(address, int) and not hasattr(address, "string"):
        return world.string(address & (1 << 64) - 1, size or 64)
    return Text(address.string(size) if size else address.string())


def _user_string(world: World, address: Any, size: int = 0) -> Text:
    if isinstance(address, int) and not hasattr(address, "string"):
        return world.string(address & (1 << 64) - 1, size or 64)
    return Text(address.user_string(size) if size else address.user_string())


def _deref(world: World, address: Any, ctype: str | None = None) -> Any:
    if ctype is None:
        return address[0]
    space = address._space if isinstance(address, Pointer) else world.space
    return world.read(int(address) & (1 << 64) - 1, world.type_named(ctype)[0], space)


def _hex(_: World, value: Any) -> Any:
    return Shown(int(value))


def _variable(word: str) -> Word:
    """Return `var`, `percpu` or `address_of`: the frame says what a variable holds, or where it lies."""

    def made(world: World, name: str, ctype: object = None, cpu: object = None) -> Any:  # noqa: ARG001
        known = world.frame.addresses if word == "address_of" else world.frame.variables
        if name not in known:
            field = "addresses" if word == "address_of" else "variables"
            raise UsageError(f"the frame gives no {name!r}", hint=f"Frame(..., {field}={{{name!r}: ...}})")
        return u64(world.frame.addresses[name]) if word == "address_of" else plain(known[name])

    return made


def _offset(world: World, ctype: object, path: str) -> int:
    struct, types = world.type_named(str(ctype))[0], world.types
    if isinstance(struct, CPointer):
        struct = struct.target
    bits = 0
    for name in path.split("."):
        member = types.member(struct, name) if types and isinstance(struct, Struct) else None
        if member is None:
            raise UsageError(f"{ctype} has no member {path!r}")
        bits, struct = bits + member.bit_offset, member.type
    return bits // 8


def _container_of(world: World, address: Any, ctype: object, member: str) -> Any:
    return world.cast(u64(int(address) - _offset(world, ctype, member)), ctype)


def _task(world: World) -> Any:
    value, types = world.word("task"), world.types
    struct = types.struct("task_struct") if types else None
    return Pointer(world, value, struct, "kernel") if struct and isinstance(value, int) else plain(value or None)


def _swapped(size: int) -> Word:
    return lambda _, value: i64(int.from_bytes((int(value) % (1 << 8 * size)).to_bytes(size, "little"), "big"))


def _len(_: World, value: Any) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value)


def _register_argument(world: World, regs: Registers, number: int) -> Any:
    return u64(getattr(regs, registers(world.frame.arch).kernel_arguments[number]))


def _skip(world: World) -> None:
    world.written.append(("skip", "", 0))


def _return_from_function(world: World, value: Any = 0) -> None:
    world.written.append(("return", "", as_value(value) & (1 << 64) - 1))


def _emit(world: World, given: tuple[tuple[str, Any], ...]) -> None:
    fields: dict[str, Any] = {}
    for name, value in given:
        unique, number = name, 2
        while unique in fields:
            unique, number = f"{name}_{number}", number + 1
        fields[unique] = as_value(value)
    world.events.append(Sent(world.name, fields, ""))


def _log(world: World, line: str) -> None:
    world.events.append(Sent(world.name, {}, str(line)))


def _dump_stack(world: World) -> None:
    fields = {name: as_value(word_of(world, name)()) for name in ("cpu", "tid", "comm", "stack")}
    world.events.append(Sent("dump_stack", fields, ""))


_WORDS: dict[str, Word] = {
    "args": Everything,
    "var": _variable("var"),
    "percpu": _variable("percpu"),
    "address_of": _variable("address_of"),
    "sizeof": lambda world, ctype: sizeof(world.type_named(str(ctype))[0]),
    "offsetof": _offset,
    "container_of": _container_of,
    "flags": lambda _, value, names: value,  # noqa: ARG005
    "comm": lambda world: Text(world.word("comm")),
    "ns_pid": lambda world: i64(world.word("ns_pid")),
    "ns_tid": lambda world: i64(world.word("ns_tid")),
    "task": _task,
    "current": _task,
    "function": lambda world: u64(world.frame.words.get("function", 0)),
    "retval": World.result,
    "arg": lambda world, number: world.argument(number - 1),
    "string": _string,
    "user_string": _user_string,
    "deref": _deref,
    "cast": World.cast,
    "errname": lambda _, value: value,
    "hex": _hex,
    "ipv4": lambda _, address: address,
    "symbol": _hex,
    "int": lambda _, value: i64(int(value)),
    "bool": lambda _, value: Truth(bool(value)),
    "abs": lambda _, value: abs(value),
    "len": _len,
    "min": lambda _, *values: numbers.least(*values),
    "max": lambda _, *values: numbers.most(*values),
    "range": lambda _, *bounds: map(i64, range(*bounds)),
    "ntohs": _swapped(2),
    "htons": _swapped(2),
    "ntohl": _swapped(4),
    "htonl": _swapped(4),
    "instruction_pointer": lambda _, regs: regs.ip,
    "kernel_stack_pointer": lambda _, regs: regs.sp,
    "regs_return_value": lambda _, regs: u64(regs.ax),
    "regs_get_kernel_argument": _register_argument,
    "printk": _log,
    "pr_info": _log,
    "dump_stack": _dump_stack,
    "jprobe_return": lambda _: None,
    "skip": _skip,
    "return_from_function": _return_from_function,
    "emit": _emit,
    "log": _log,
}
KNOWN = frozenset({*_WORDS, "regs", *(row.name for row in BUILTINS.values() if row.world)})
