"""Dynamic probing for Linux, programmed in Python.

    from kprobes import Histogram, attach, comm, kretprobe, now

    usecs = Histogram("usecs", by=str)

    @kretprobe("vfs_read")
    def read_latency(file, count):
        start = now()
        ret = yield
        if ret > 0:
            usecs.add((now() - start) // 1000, by=comm())

    with attach(read_latency) as session:
        session.wait(5)
        print(session[usecs])

This file only hands names on, each when it is first asked for, so that a command pays for nothing it does not use.
"""

from __future__ import annotations

from kprobes.version import VERSION

__version__ = VERSION

_HOMES = {
    "kprobes.decorators": "kprobe kretprobe uprobe uretprobe tracepoint",
    "kprobes.model.mapspec": "Count Histogram HashMap Stack String Symbol Unsigned UserStack",
    "kprobes.model.words": (
        "arg cast cgroup comm cpu current cycles deref emit function gid log now pid random regs retval "
        "return_from_function skip stack string symbol task tid uid user_stack user_string"
    ),
    "kprobes.session": "Session attach kallsyms_lookup_name",
    "kprobes.engines.targets": "Kernel Machine",
    "kprobes.engines.process.target": "Process",
    "kprobes.errors": "CompileError KprobesError",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "CompileError",
    "Count",
    "HashMap",
    "Histogram",
    "Kernel",
    "KprobesError",
    "Machine",
    "Process",
    "Session",
    "Stack",
    "String",
    "Symbol",
    "Unsigned",
    "UserStack",
    "arg",
    "attach",
    "cast",
    "cgroup",
    "comm",
    "cpu",
    "current",
    "cycles",
    "deref",
    "emit",
    "fault_address",
    "fault_signal",
    "function",
    "gid",
    "kallsyms_lookup_name",
    "kprobe",
    "kretprobe",
    "log",
    "now",
    "pid",
    "random",
    "regs",
    "return_from_function",
    "retval",
    "skip",
    "stack",
    "string",
    "symbol",
    "task",
    "tid",
    "tracepoint",
    "uid",
    "uprobe",
    "uretprobe",
    "user_stack",
    "user_string",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.decorators import kprobe, kretprobe, tracepoint, uprobe, uretprobe
    from kprobes.engines.process.target import Process
    from kprobes.engines.targets import Kernel, Machine
    from kprobes.errors import CompileError, KprobesError
    from kprobes.model.mapspec import Count, HashMap, Histogram, Stack, String, Symbol, Unsigned, UserStack
    from kprobes.model.words import (
        arg,
        cast,
        cgroup,
        comm,
        cpu,
        current,
        cycles,
        deref,
        emit,
        fault_address,
        fault_signal,
        function,
        gid,
        log,
        now,
        pid,
        random,
        regs,
        return_from_function,
        retval,
        skip,
        stack,
        string,
        symbol,
        task,
        tid,
        uid,
        user_stack,
        user_string,
    )
    from kprobes.session import Session, attach, kallsyms_lookup_name


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'kprobes' has no attribute {name!r}")
    value = getattr(__import__(home, fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
