"""The kernel's calls: `register_kprobe` and its like.

Where the C functions return an errno, these raise a `RegistrationError` that carries it. *to* says where: a `Module`,
or a target, with which a module of its own is opened, and closed when the probe is unregistered. Without it the `with
Module(...)` is meant that this runs in, or else this machine's kernel.
"""

from __future__ import annotations

from kprobes.errors import RegistrationError
from kprobes.kapi.module import Module, current
from kprobes.kapi.objects import Jprobe, Kprobe, Kretprobe, check_members, listed, require
from kprobes.kapi.refusal import told_as_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.engines.targets import Target
    from kprobes.kapi.objects import Registrable

    Where = Module | Target | None


def register_kprobe(p: Kprobe, *, to: Where = None) -> None:
    """Register the probe *p*.

    Raises:
        RegistrationError: EINVAL, ENOENT, EILSEQ, EOPNOTSUPP, ...: see docs/c-api.md.
        CompileError: a handler is outside the language.
    """
    require(Kprobe, p)
    _register([p], to)


def register_kprobes(kps: Sequence[Kprobe], *, to: Where = None) -> None:
    """Register several probes; if one is refused, those before it are unregistered."""
    things = listed(kps)
    require(Kprobe, *things)
    _register(things, to)


def unregister_kprobe(p: Kprobe) -> None:
    """Unregister *p*: no handler of it runs afterwards."""
    _unregister([p])


def unregister_kprobes(kps: Sequence[Kprobe]) -> None:
    """Unregister several probes."""
    _unregister(listed(kps))


def register_kretprobe(rp: Kretprobe, *, to: Where = None) -> None:
    """Register the return probe *rp*; raises as `register_kprobe`, and E2BIG."""
    require(Kretprobe, rp)
    _register([rp], to)


def register_kretprobes(rps: Sequence[Kretprobe], *, to: Where = None) -> None:
    """Register several return probes; if one is refused, those before it are unregistered."""
    things = listed(rps)
    require(Kretprobe, *things)
    _register(things, to)


def unregister_kretprobe(rp: Kretprobe) -> None:
    """Unregister *rp*: no handler of it runs afterwards."""
    _unregister([rp])


def unregister_kretprobes(rps: Sequence[Kretprobe]) -> None:
    """Unregister several return probes."""
    _unregister(listed(rps))


def register_jprobe(p: Jprobe, *, to: Where = None) -> None:
    """Register the jprobe *p*; raises as `register_kprobe`."""
    require(Jprobe, p)
    _register([p], to)


def register_jprobes(jps: Sequence[Jprobe], *, to: Where = None) -> None:
    """Register several jprobes; if one is refused, those before it are unregistered."""
    things = listed(jps)
    require(Jprobe, *things)
    _register(things, to)


def unregister_jprobe(p: Jprobe) -> None:
    """Unregister *p*: its entry doesn't run afterwards."""
    _unregister([p])


def unregister_jprobes(jps: Sequence[Jprobe]) -> None:
    """Unregister several jprobes."""
    _unregister(listed(jps))


def enable_kprobe(kp: Kprobe) -> None:
    """Let *kp* go on that `disable_kprobe` let rest, or that was registered with KPROBE_FLAG_DISABLED.

    Raises:
        RegistrationError: EINVAL: it isn't registered, or what it probed has gone.
    """
    _set_disabled(kp, disabled=False)


def disable_kprobe(kp: Kprobe) -> None:
    """Let *kp* rest: no handler of it runs afterwards; others at the same place go on. Raises as `enable_kprobe`."""
    _set_disabled(kp, disabled=True)


def enable_kretprobe(rp: Kretprobe) -> None:
    """Let *rp* go on. Raises as `enable_kprobe`."""
    _set_disabled(rp, disabled=False)


def disable_kretprobe(rp: Kretprobe) -> None:
    """Let *rp* rest. Raises as `enable_kprobe`."""
    _set_disabled(rp, disabled=True)


def enable_jprobe(jp: Jprobe) -> None:
    """Let *jp* go on. Raises as `enable_kprobe`."""
    _set_disabled(jp, disabled=False)


def disable_jprobe(jp: Jprobe) -> None:
    """Let *jp* rest. Raises as `enable_kprobe`."""
    _set_disabled(jp, disabled=True)


def disarm_all_kprobes(module: Module | None = None) -> None:
    """Disarm every probe of a module, as writing 0 to the kernel's `kprobes/enabled` does; each keeps its own state."""
    _module(module).enabled = False


def arm_all_kprobes(module: Module | None = None) -> None:
    """Arm every probe of a module that isn't disabled itself."""
    _module(module).enabled = True


def kmsg(timeout_s: float | None = None) -> Iterator[str]:
    """Yield the lines that handlers of the present module print, as `Module.kmsg`."""
    return _module(None).kmsg(timeout_s)


def _register(things: Sequence[Registrable], to: Where) -> None:
    module = to if isinstance(to, Module) else current() if to is None else None
    if module is not None:
        module.register(*things)
        return
    assert not isinstance(to, Module)
    for thing in things:
        check_members(thing)
    with told_as_errno(f"registering {', '.join(map(str, things))}"):
        own = Module(to)
    try:
        own.register(*things)
    except BaseException:
        own.close()
        raise
    own.closes_when_empty = True


def _unregister(things: Sequence[Registrable]) -> None:
    by_module: dict[Module, list[Registrable]] = {}
    for thing in things:
        check_members(thing)
    for thing in things:
        one = thing.kp.registration
        if one is not None:
            by_module.setdefault(one.module, []).append(thing)
    for module, own in by_module.items():
        module.unregister(*own)


def _set_disabled(thing: Registrable, *, disabled: bool) -> None:
    check_members(thing)
    one = thing.kp.registration
    if one is None:
        raise RegistrationError(f"{thing} is not registered", "EINVAL", hint="register it first")
    one.module.set_disabled(thing, disabled)


def _module(module: Module | None) -> Module:
    found = module or current()
    if found is None:
        what = "no module is meant"
        raise RegistrationError(what, "EINVAL", hint="write this inside of `with Module(target):`, or name the module")
    return found
