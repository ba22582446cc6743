"""The words a handler can say, as importable names: they give editors something to complete and document.

Handlers are compiled, so none of these ever runs in Python; calling one outside a handler says so. What each means
to the
compiler stands in the front's table of builtins.
"""

from __future__ import annotations

from kprobes.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def _only_in_handlers(word: str) -> NoReturn:
    raise UsageError(
        f"{word} means something only inside a handler, which is compiled",
        hint="put it into a function decorated with @kprobe, @kretprobe, @uprobe, @uretprobe or @tracepoint",
    )


def now() -> int:
    """Return the time in ns since boot (CLOCK_MONOTONIC)."""
    _only_in_handlers("now()")


def cycles() -> int:
    """Return the time stamp counter, cheaper than `now()`: ticks of a constant rate. Only inside of a process."""
    _only_in_handlers("cycles()")


def fault_signal() -> int:
    """Return the number of the signal of the fault. Only with `on_fault=True`."""
    _only_in_handlers("fault_signal()")


def fault_address() -> int:
    """Return the address that the fault is about (`si_addr`). Only with `on_fault=True`."""
    _only_in_handlers("fault_address()")


def comm() -> str:
    """Return the name of the current thread, at most 15 bytes."""
    _only_in_handlers("comm()")


def pid() -> int:
    """Return the process id (the kernel's thread group)."""
    _only_in_handlers("pid()")


def tid() -> int:
    """Return the thread id."""
    _only_in_handlers("tid()")


def uid() -> int:
    """Return the real user id."""
    _only_in_handlers("uid()")


def gid() -> int:
    """Return the real group id."""
    _only_in_handlers("gid()")


def cpu() -> int:
    """Return the number of the CPU."""
    _only_in_handlers("cpu()")


def cgroup() -> int:
    """Return the id of the cgroup (version 2)."""
    _only_in_handlers("cgroup()")


def stack() -> int:
    """Return the id of the kernel stack; shown as frames."""
    _only_in_handlers("stack()")


def user_stack() -> int:
    """Return the id of the user stack; shown as frames."""
    _only_in_handlers("user_stack()")


def random() -> int:
    """Return 32 random bits."""
    _only_in_handlers("random()")


def emit(*values: object, **named: object) -> None:
    """Send one event; positional values are named after their text."""
    _only_in_handlers("emit()")


def log(text: str) -> None:
    """Send one line of text: an f-string over the handler's values."""
    _only_in_handlers("log()")


def string(address: object, size: int = 64) -> str:
    """Return the NUL-terminated string at *address*, at most *size* - 1 bytes."""
    _only_in_handlers("string()")


def deref(address: object, ctype: str = "u64") -> int:
    """Return what lies at *address*, read safely as *ctype*."""
    _only_in_handlers("deref()")


def cast(value: object, ctype: str) -> object:
    """Return *value* as a pointer or integer of *ctype*: `cast(arg(1), "struct file *")`."""
    _only_in_handlers("cast()")


def arg(number: int) -> int:
    """Return argument *number*, from 1, as the kernel's `$argN`."""
    _only_in_handlers("arg()")


def retval() -> int:
    """Return what the probed function returned."""
    _only_in_handlers("retval()")


def user_string(address: object, size: int = 64) -> str:
    """Return the string at *address* in the memory of the process, whatever the address looks like."""
    _only_in_handlers("user_string()")


def task() -> Task:
    """Return the `struct task_struct` of the running thread; `current` is the same."""
    _only_in_handlers("task()")


def function() -> int:
    """Return the address of the probe, shown as symbol+offset."""
    _only_in_handlers("function()")


def skip() -> None:
    """Don't run the probed instruction (only with `unsafe=True`)."""
    _only_in_handlers("skip()")


def return_from_function(value: int = 0) -> None:
    """Leave the probed function with *value*, without running it (only with `unsafe=True`)."""
    _only_in_handlers("return_from_function()")


def symbol(address: object) -> int:
    """Return *address*, shown as symbol+offset."""
    _only_in_handlers("symbol()")


class Registers:
    """`regs.di`, `regs.rdi`: the registers at the hit, by their names in `struct pt_regs`."""

    word = "regs"

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        _only_in_handlers(f"regs.{name}")


regs = Registers()


class Task:
    """`current.comm`, `current.real_parent.pid`: the running thread, by the fields of `struct task_struct`."""

    word = "current"

    def __getattr__(self, name: str) -> Task:
        if name.startswith("__"):
            raise AttributeError(name)
        _only_in_handlers(f"current.{name}")


current = Task()
