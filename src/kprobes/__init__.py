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
What the names are, editors and type checkers read in `__init__.pyi`, which `scripts/words` makes from the table here
and that of the builtins.
"""

from __future__ import annotations

from kprobes.version import VERSION

__version__ = VERSION

HOMES = {
    "kprobes.decorators": "definition kprobe kretprobe tracepoint uprobe uretprobe",
    "kprobes.engines.process.target": "Process",
    "kprobes.engines.targets": "Kernel Machine",
    "kprobes.errors": "CompileError HandlerWarning KprobesError RegistrationError",
    "kprobes.kapi.functions": (
        "arm_all_kprobes disarm_all_kprobes kmsg "
        "disable_jprobe disable_kprobe disable_kretprobe enable_jprobe enable_kprobe enable_kretprobe "
        "register_jprobe register_jprobes register_kprobe register_kprobes register_kretprobe register_kretprobes "
        "unregister_jprobe unregister_jprobes unregister_kprobe unregister_kprobes unregister_kretprobe "
        "unregister_kretprobes"
    ),
    "kprobes.kapi.module": "Module",
    "kprobes.kapi.objects": (
        "KPROBE_FLAG_DISABLED KPROBE_FLAG_FTRACE KPROBE_FLAG_GONE KPROBE_FLAG_ON_FUNC_ENTRY KPROBE_FLAG_OPTIMIZED "
        "Jprobe Kprobe Kretprobe"
    ),
    "kprobes.model.aggregates": "Avg Max Min Stacks Sum",
    "kprobes.model.containers": "Array Queue",
    "kprobes.model.cwords": "bits char cstr i8 i16 i32 i64 ptr s8 s16 s32 s64 size_t ssize_t u8 u16 u32 u64",
    "kprobes.model.mapspec": "Cgroup Count HashMap Histogram Stack String Symbol Unsigned UserStack",
    "kprobes.model.registered": "get_kretprobe",
    "kprobes.model.setting": "Setting",
    "kprobes.model.structs": "struct union",
    "kprobes.session": "Session attach",
    "kprobes.session.lookup": "kallsyms_lookup_name",
}
_HOME_OF = {name: home for home, names in HOMES.items() for name in names.split()}
_WORDS = "kprobes.model.words"


def __getattr__(name: str) -> object:
    if name == "__all__":
        return __dir__()
    if name.startswith("__"):
        raise AttributeError(f"module 'kprobes' has no attribute {name!r}")
    home = _HOME_OF.get(name, _WORDS)
    try:
        value = getattr(__import__(home, fromlist=(name,)), name)
    except AttributeError:
        raise AttributeError(f"module 'kprobes' has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from kprobes.model.words import WORDS

    return sorted([*_HOME_OF, *WORDS, "__version__"])
