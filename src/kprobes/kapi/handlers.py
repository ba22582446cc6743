"""Handlers as the kernel's interface has them -> probes with one handler each, which calls them.

The text of that handler is written here; the user's functions are compiled into it, and mistakes in them are told as
theirs alone. What the kernel's calls say by return values is said in the language: `skip()`, `regs.ip = ...`, `return`.
"""

from __future__ import annotations

from types import FunctionType

from kprobes.compiler.front.source import source_of
from kprobes.errors import CompileError, RegistrationError
from kprobes.frozen import dataclass
from kprobes.kapi.objects import Jprobe, Kprobe, Kretprobe
from kprobes.model.mapspec import HashMap
from kprobes.model.probe import HandlerSource, Probe
from kprobes.model.registered import Calling, Instance, Registered
from kprobes.model.structs import shape_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kprobes.kapi.objects import Registrable

MOST_DATA = 4096  # bytes, since Linux 5.19; include/linux/kprobes.h, KRETPROBE_MAX_DATA_SIZE
_SHAPES = {
    "pre_handler": ("p", "regs"),
    "post_handler": ("p", "regs", "flags"),
    "fault_handler": ("p", "regs", "trapnr"),
    "entry_handler": ("ri", "regs"),
    "handler": ("ri", "regs"),
}
_ONLY_0_SAFE = "that changes the probed program; allow it: Kprobe(..., unsafe=True)"
_ONLY_0_KERNEL = "a kernel runs the instruction whatever it returns; return 0, or probe a process"
# Signals as the numbers of the exceptions that lead to them: division, invalid opcode, and else a page fault.
_TRAP = "0 if fault_signal() == 8 else 6 if fault_signal() == 4 else 14"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a probe goes: *place* as it is spelled for the target, in a process (*native*) or a kernel.

    *behind*: in a kernel, how many bytes behind the place the next instruction begins, and *stack_change*, by how many
    bytes the instruction moves the stack pointer; *next_place* is how that one is spelled. *returns_to* as in
    `model.registered.Instance`.
    """

    place: str
    native: bool
    next_place: str = ""
    behind: int = 0
    stack_change: int = 0
    returns_to: str = ""


def probes_of(thing: Registrable, spot: Spot) -> tuple[Probe, ...]:
    """Return the probes that carry out *thing*, in the order in which they are attached.

    Raises:
        CompileError: a handler is no plain function, or takes other parameters.
        RegistrationError: EINVAL, E2BIG, EOPNOTSUPP: why it can't be.
    """
    if isinstance(thing, Kretprobe):
        return (_return_probe(thing, spot),)
    if isinstance(thing, Jprobe):
        return (_jprobe(thing, spot),)
    if spot.native:
        return _in_process(thing, spot)
    return _in_kernel(thing, spot)


def wants_next(thing: Registrable) -> bool:
    """Tell whether *thing* has a handler that runs behind its instruction."""
    return isinstance(thing, Kprobe) and thing.post_handler is not None


# Kprobes.


def _in_process(thing: Kprobe, spot: Spot) -> tuple[Probe, ...]:
    p = _registered(thing)
    probes = []
    lines, names = _before(thing, thing.unsafe), {"p": p, "pre": thing.pre_handler, "post": thing.post_handler}
    if thing.post_handler is not None:
        lines += ["yield", "post(p, regs, 0)"]
    if lines:
        only_0 = "" if thing.unsafe else _ONLY_0_SAFE
        handler = _written(thing.pre_handler or thing.post_handler, lines, names, only_0)
        probes.append(Probe("uprobe", (spot.place,), handler, unsafe=thing.unsafe))
    if thing.fault_handler is not None:
        call = f"fault(p, regs, {_TRAP})"
        lines = [f"if {call}:", "    regs.ip = regs.ip"] if thing.unsafe else [call]
        only_0 = "" if thing.unsafe else _ONLY_0_SAFE
        handler = _written(thing.fault_handler, lines, {"p": p, "fault": thing.fault_handler}, only_0)
        probes.append(Probe("uprobe", (spot.place,), handler, unsafe=thing.unsafe, on_fault=True))
    _check_shapes(thing)
    return tuple(probes) or (Probe("uprobe", (spot.place,)),)


def _before(thing: Kprobe, unsafe: bool) -> list[str]:
    if thing.pre_handler is None:
        return []
    return ["if pre(p, regs):", "    skip()", "    return"] if unsafe else ["pre(p, regs)"]


def _in_kernel(thing: Kprobe, spot: Spot) -> tuple[Probe, ...]:
    if thing.fault_handler is not None:
        hint = "kernels since 5.14 have none either; in a process it works: register_kprobe(p, to=Process(pid))"
        raise RegistrationError("a kernel runs no fault_handler", "EOPNOTSUPP", hint=hint)
    _check_shapes(thing)
    p = _registered(thing)
    if thing.pre_handler is None and thing.post_handler is None:
        return (Probe("kprobe", (spot.place,), way="kprobe"),)
    if thing.post_handler is None:
        handler = _written(thing.pre_handler, ["pre(p, regs)"], {"p": p, "pre": thing.pre_handler}, _ONLY_0_KERNEL)
        return (Probe("kprobe", (spot.place,), handler, way="kprobe"),)
    # The next instruction may be jumped to as well. That the probed one has just run is told by the stack pointer:
    # each context of the kernel has a stack of its own.
    stepped = HashMap("stepped_" + _plain(spot.place), key=int, value=bool, lru=True, entries=4096)
    names = {"p": p, "pre": thing.pre_handler, "stepped": stepped}
    lines = (["pre(p, regs)"] if thing.pre_handler else []) + [f"stepped[regs.sp + {spot.stack_change}] = True"]
    first = _written(thing.pre_handler or thing.post_handler, lines, names, _ONLY_0_KERNEL)
    behind = Registered(p.symbol_name, p.offset, spot.behind)
    names = {"p": behind, "post": thing.post_handler, "stepped": stepped}
    lines = ["if regs.sp in stepped:", "    del stepped[regs.sp]", "    post(p, regs, 0)"]
    second = _written(thing.post_handler, lines, names)
    places = (spot.place, spot.next_place)
    probes = zip(places, (first, second), strict=True)
    return tuple(Probe("kprobe", (place,), handler, way="kprobe") for place, handler in probes)


def _plain(place: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in place)


# Others.


def _return_probe(thing: Kretprobe, spot: Spot) -> Probe:
    _refuse_handlers(thing, "a return probe has handler= and entry_handler=")
    size = _size_of(thing.data_size)
    if not 0 <= size <= MOST_DATA:
        name = "E2BIG" if size > 0 else "EINVAL"
        what = f"data_size is {size} bytes, and goes from 0 to {MOST_DATA}"
        raise RegistrationError(what, name, hint="keep what is larger in a HashMap, by a number that ri.data keeps")
    _check(thing.entry_handler, "entry_handler")
    _check(thing.handler, "handler")
    ri = Instance(_registered(thing.kp), thing.data_size, spot.returns_to)
    lines = []
    if thing.entry_handler is not None:
        lines = ["if entry(ri, regs):", "    return"]
    lines += ["yield", *(["handler(ri, regs)"] if thing.handler is not None else [])]
    names = {"ri": ri, "entry": thing.entry_handler, "handler": thing.handler}
    function = thing.handler or thing.entry_handler
    handler = _written(function, lines, names) if function else None
    kind, way = ("uretprobe", "") if spot.native else ("kretprobe", "kprobe")
    return Probe(kind, (spot.place,), handler, maxactive=max(thing.maxactive, 0), way=way)


def _refuse_handlers(thing: Kretprobe | Jprobe, instead: str) -> None:
    if thing.kp.pre_handler or thing.kp.post_handler or thing.kp.fault_handler:
        what = f"the kp of a {type(thing).__name__} has handlers of its own"
        raise RegistrationError(what, "EINVAL", hint=f"{instead}; register a Kprobe besides")


def _size_of(data: object) -> int:
    shape = shape_of(data)
    if shape is not None:
        return shape.size
    if isinstance(data, int):
        return data
    what = "data_size is a number of bytes or a struct class"
    raise RegistrationError(what, "EINVAL", hint="decorate the class with @struct: data_size=MyData")


def _jprobe(thing: Jprobe, spot: Spot) -> Probe:
    _refuse_handlers(thing, "a jprobe has entry=")
    if thing.entry is None:
        hint = "Jprobe(symbol_name=..., entry=function)"
        raise RegistrationError("a jprobe without entry", "EINVAL", hint=hint)
    source = source_of(thing.entry)
    handler = HandlerSource(source.name, source.text, source.file, source.line, source.indent, source.names, Calling())
    kind, way = ("uprobe", "") if spot.native else ("kprobe", "kprobe")
    return Probe(kind, (spot.place,), handler, way=way)


# Texts.


def _registered(thing: Kprobe) -> Registered:
    return Registered(thing.symbol_name, thing.offset)


def _written(
    function: Callable[..., object] | None, lines: list[str], names: Mapping[str, object], only_0: str = ""
) -> HandlerSource:
    """Return the handler of these *lines*, which goes by the name and the place of *function*."""
    if not isinstance(function, FunctionType):
        source_of(function)  # says what it is instead
    assert isinstance(function, FunctionType)
    text = f"def {function.__name__}():\n" + "".join(f"    {line}\n" for line in lines)
    code = function.__code__
    return HandlerSource(
        function.__name__, text, code.co_filename, code.co_firstlineno, names=names, calling=Calling(only_0)
    )


def _check_shapes(thing: Kprobe) -> None:
    for member in ("pre_handler", "post_handler", "fault_handler"):
        _check(getattr(thing, member), member)


def _check(function: Callable[..., object] | None, member: str) -> None:
    """Refuse a handler that takes other parameters than the kernel's.

    Raises:
        CompileError: it does.
    """
    if function is None:
        return
    source = source_of(function)
    code, shape = function.__code__, _SHAPES[member]
    if code.co_argcount == len(shape) and not code.co_kwonlyargcount and not code.co_flags & 0x0C:
        return
    wanted = f"def {source.name}({', '.join(shape)}): ..."
    raise CompileError(
        f"a {member} takes {', '.join(shape)}",
        hint=f"write {wanted}",
        place=(source.file, source.line, source.indent),
        source=source.text.splitlines()[0],
    )
