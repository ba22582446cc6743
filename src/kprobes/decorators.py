"""The decorators: a plain Python function becomes a probe."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.model.probe import LEAST_STRING, MOST_STRING, FetchHandler, Probe

_RETURN = "%return"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.model.definition import Definition


def kprobe(*places: str, way: str = "", unsafe: bool = False) -> Callable[[Callable[..., object]], Probe]:
    """Probe kernel functions or instructions: `@kprobe("vfs_read")`, `"vfs_read+0x10"`, `"0xffffffff81..."`.

    The handler's parameters are the C prototype's own, by name. *way* forces a way in: `kprobe`, `fentry` or
    `kprobe.multi`.

    Raises:
        UsageError: no place is given, or the decorated thing has no source.
    """
    return _decorator("kprobe", places, way=way, unsafe=unsafe)


def kretprobe(
    *places: str, maxactive: int = 0, way: str = "", unsafe: bool = False
) -> Callable[[Callable[..., object]], Probe]:
    """Probe the return of kernel functions; a `yield` in the handler is where the probed function runs.

    *maxactive* bounds the calls under way that a kretprobe follows (0: the kernel's default).
    """
    return _decorator("kretprobe", places, maxactive=maxactive, way=way, unsafe=unsafe)


def uprobe(*places: str, unsafe: bool = False, on_fault: bool = False) -> Callable[[Callable[..., object]], Probe]:
    """Probe functions of programs and libraries: `@uprobe("libc:malloc")`, `"/bin/bash:readline"`, `"libc:0x620"`.

    With *on_fault* the handler runs when the instruction there faults, before the program gets its signal; only inside
    of a process.
    """
    return _decorator("uprobe", places, unsafe=unsafe, on_fault=on_fault)


def uretprobe(*places: str, maxactive: int = 0, unsafe: bool = False) -> Callable[[Callable[..., object]], Probe]:
    """Probe the return of functions of programs and libraries."""
    return _decorator("uretprobe", places, maxactive=maxactive, unsafe=unsafe)


def tracepoint(*places: str) -> Callable[[Callable[..., object]], Probe]:
    """Hook kernel tracepoints: `@tracepoint("sched:sched_switch")`; the parameters are the fields of the record."""
    return _decorator("tracepoint", places)


def definition(
    text: str | Definition,
    *,
    filter: str = "",  # noqa: A002 - what the kernel calls it
    strings: int = 0,
    way: str = "",
) -> Probe:
    """Return the probe that *text* defines in the kernel's own language: `definition("p:mine vfs_read size=%dx")`.

    What `kprobes.grammar` has parsed will do as well.

    Each hit is an event with the definition's name and arguments, if it passes *filter*, which is written as for the
    kernel's `filter` files: `size > 100 && comm ~ "cat*"`. *strings* is the room for each string in bytes, 0 for the
    usual. *way* forces a way in; `tracefs` is that of the kernel's own probe events, without BPF. What the text means
    is looked into when it is attached, by the rules of the target's kernel.

    Raises:
        UsageError: it is no definition of a probe, or *strings* is no size for a string.
    """
    text = text if isinstance(text, str) else text.text
    words = text.partition("#")[0].split()
    if len(words) < 2 or words[0][0] not in "pr" or "\n" in text.strip():
        raise UsageError(
            f"{text!r} defines no probe", hint="write `p:NAME PLACE ARGUMENT...`, as for the kernel's kprobe_events"
        )
    if strings and not LEAST_STRING <= strings <= MOST_STRING:
        raise UsageError(
            f"no room of {strings} bytes for a string", hint=f"{LEAST_STRING} to {MOST_STRING} can be given"
        )
    returns = words[0][0] == "r" or words[1].endswith(_RETURN)
    place = words[1].removesuffix(_RETURN)
    in_file = "/" in place and ":" in place
    kind = ("uretprobe" if returns else "uprobe") if in_file else ("kretprobe" if returns else "kprobe")
    return Probe(kind, (place,), FetchHandler(text.strip(), filter.strip(), strings), way=way)


def _decorator(
    kind: str,
    places: tuple[str, ...],
    *,
    maxactive: int = 0,
    way: str = "",
    unsafe: bool = False,
    on_fault: bool = False,
) -> Callable[[Callable[..., object]], Probe]:
    if not places or not all(isinstance(place, str) for place in places):
        raise UsageError(f"@{kind} needs the places to probe", hint=f'write @{kind}("name") with one or more names')

    def decorate(function: Callable[..., object]) -> Probe:
        from kprobes.model.probe import BUNDLED, HandlerSource

        names = getattr(function, "__globals__", {})
        if BUNDLED in names:  # the script of a bundle: its handlers are compiled already
            return Probe(kind, places, HandlerSource(function.__name__, ""), maxactive, way, unsafe, on_fault)
        from kprobes.compiler.front.source import source_of

        return Probe(kind, places, source_of(function), maxactive, way, unsafe, on_fault)

    return decorate
