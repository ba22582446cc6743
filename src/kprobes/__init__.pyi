"""The names of kprobes, for editors and type checkers. Written by scripts/words; don't edit it by hand."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, dataclass_transform, overload

from kprobes.decorators import definition as definition
from kprobes.decorators import kprobe as kprobe
from kprobes.decorators import kretprobe as kretprobe
from kprobes.decorators import tracepoint as tracepoint
from kprobes.decorators import uprobe as uprobe
from kprobes.decorators import uretprobe as uretprobe
from kprobes.engines.process.target import Process as Process
from kprobes.engines.targets import Kernel as Kernel
from kprobes.engines.targets import Machine as Machine
from kprobes.errors import CompileError as CompileError
from kprobes.errors import HandlerWarning as HandlerWarning
from kprobes.errors import KprobesError as KprobesError
from kprobes.errors import RegistrationError as RegistrationError
from kprobes.kapi.functions import arm_all_kprobes as arm_all_kprobes
from kprobes.kapi.functions import disable_jprobe as disable_jprobe
from kprobes.kapi.functions import disable_kprobe as disable_kprobe
from kprobes.kapi.functions import disable_kretprobe as disable_kretprobe
from kprobes.kapi.functions import disarm_all_kprobes as disarm_all_kprobes
from kprobes.kapi.functions import enable_jprobe as enable_jprobe
from kprobes.kapi.functions import enable_kprobe as enable_kprobe
from kprobes.kapi.functions import enable_kretprobe as enable_kretprobe
from kprobes.kapi.functions import kmsg as kmsg
from kprobes.kapi.functions import register_jprobe as register_jprobe
from kprobes.kapi.functions import register_jprobes as register_jprobes
from kprobes.kapi.functions import register_kprobe as register_kprobe
from kprobes.kapi.functions import register_kprobes as register_kprobes
from kprobes.kapi.functions import register_kretprobe as register_kretprobe
from kprobes.kapi.functions import register_kretprobes as register_kretprobes
from kprobes.kapi.functions import unregister_jprobe as unregister_jprobe
from kprobes.kapi.functions import unregister_jprobes as unregister_jprobes
from kprobes.kapi.functions import unregister_kprobe as unregister_kprobe
from kprobes.kapi.functions import unregister_kprobes as unregister_kprobes
from kprobes.kapi.functions import unregister_kretprobe as unregister_kretprobe
from kprobes.kapi.functions import unregister_kretprobes as unregister_kretprobes
from kprobes.kapi.module import Module as Module
from kprobes.kapi.objects import KPROBE_FLAG_DISABLED as KPROBE_FLAG_DISABLED
from kprobes.kapi.objects import KPROBE_FLAG_FTRACE as KPROBE_FLAG_FTRACE
from kprobes.kapi.objects import KPROBE_FLAG_GONE as KPROBE_FLAG_GONE
from kprobes.kapi.objects import KPROBE_FLAG_ON_FUNC_ENTRY as KPROBE_FLAG_ON_FUNC_ENTRY
from kprobes.kapi.objects import KPROBE_FLAG_OPTIMIZED as KPROBE_FLAG_OPTIMIZED
from kprobes.kapi.objects import Jprobe as Jprobe
from kprobes.kapi.objects import Kprobe as Kprobe
from kprobes.kapi.objects import Kretprobe as Kretprobe
from kprobes.model.aggregates import Avg as Avg
from kprobes.model.aggregates import Max as Max
from kprobes.model.aggregates import Min as Min
from kprobes.model.aggregates import Stacks as Stacks
from kprobes.model.aggregates import Sum as Sum
from kprobes.model.containers import Array as Array
from kprobes.model.containers import Queue as Queue
from kprobes.model.cwords import bits as bits
from kprobes.model.mapspec import Cgroup as Cgroup
from kprobes.model.mapspec import Count as Count
from kprobes.model.mapspec import HashMap as HashMap
from kprobes.model.mapspec import Histogram as Histogram
from kprobes.model.mapspec import Stack as Stack
from kprobes.model.mapspec import String as String
from kprobes.model.mapspec import Symbol as Symbol
from kprobes.model.mapspec import Unsigned as Unsigned
from kprobes.model.mapspec import UserStack as UserStack
from kprobes.model.registered import get_kretprobe as get_kretprobe
from kprobes.model.setting import Setting as Setting
from kprobes.session import Session as Session
from kprobes.session import attach as attach
from kprobes.session.lookup import kallsyms_lookup_name as kallsyms_lookup_name

# Types of C, for annotations: to a reader they are what Python has for them.
char: TypeAlias = Any
cstr: TypeAlias = str
i16: TypeAlias = int
i32: TypeAlias = int
i64: TypeAlias = int
i8: TypeAlias = int
ptr: TypeAlias = Any
s16: TypeAlias = int
s32: TypeAlias = int
s64: TypeAlias = int
s8: TypeAlias = int
size_t: TypeAlias = int
ssize_t: TypeAlias = int
u16: TypeAlias = int
u32: TypeAlias = int
u64: TypeAlias = int
u8: TypeAlias = int

_T = TypeVar("_T")

@overload
@dataclass_transform(frozen_default=True)
def struct(cls: type[_T], /, *, packed: bool = False) -> type[_T]: ...
@overload
@dataclass_transform(frozen_default=True)
def struct(cls: None = None, /, *, packed: bool = False) -> Callable[[type[_T]], type[_T]]: ...
@overload
@dataclass_transform(frozen_default=True)
def union(cls: type[_T], /, *, packed: bool = False) -> type[_T]: ...
@overload
@dataclass_transform(frozen_default=True)
def union(cls: None = None, /, *, packed: bool = False) -> Callable[[type[_T]], type[_T]]: ...

HOMES: dict[str, str]
__version__: str
__all__: list[str]

class _Integer(int):
    def __call__(self) -> int: ...

class _String(str):
    def __call__(self) -> str: ...

class _Value(int):
    def __call__(self) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...

class Task:
    """The running thread, by the fields of `struct task_struct`."""

    def __call__(self) -> Task: ...
    def __getattr__(self, name: str) -> Any: ...

class Registers:
    """The registers at the hit, by their names in `struct pt_regs`."""

    r15: int
    r14: int
    r13: int
    r12: int
    bp: int
    bx: int
    r11: int
    r10: int
    r9: int
    r8: int
    ax: int
    cx: int
    dx: int
    si: int
    di: int
    orig_ax: int
    ip: int
    cs: int
    flags: int
    sp: int
    ss: int
    rbp: int
    rbx: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    orig_rax: int
    rip: int
    eflags: int
    rflags: int
    rsp: int

args: _Value
"""All parameters: `emit(*args)`, `args.count`."""
cgroup: _Integer
"""The id of the cgroup (version 2), shown as its path or container. Only in a kernel."""
comm: _String
"""The name of the running thread, at most 15 bytes."""
cpu: _Integer
"""The number of the CPU."""
current: Task
"""The same as `task()`. Only in a kernel."""
cycles: _Integer
"""The CPU's time stamp counter: cheaper than `now()`, in ticks of a constant rate. Only in a process."""
fault_address: _Integer
"""The address that the fault is about (`si_addr`). Only with `on_fault=True`, in a process."""
fault_signal: _Integer
"""The number of the signal of the fault. Only with `on_fault=True`, in a process."""
function: _Integer
"""The address of the probe, shown as a symbol."""
gid: _Integer
"""The real group id."""
host_pid: _Integer
"""The process id as the host has it (in a process: as the prober has it)."""
host_tid: _Integer
"""The thread id as the host has it. Only in a kernel."""
now: _Integer
"""The time in ns since boot, monotonic."""
ns_pid: _Integer
"""The process id as its own namespace has it: in a container that of the container."""
ns_tid: _Integer
"""The thread id, of the same namespace."""
pid: _Integer
"""The process id: the host's in a kernel, inside of a process that of its namespace."""
random: _Integer
"""32 random bits."""
regs: Registers
"""The registers: `regs.di` or `regs.rdi`, all those of `struct pt_regs`."""
retval: _Value
"""What the probed function returned. Only at returns."""
stack: _Integer
"""The kernel's stack (inside of a process: the program's), as a key (`by=Stack`) or in an event."""
task: Task
"""The `struct task_struct *` of the running thread. Only in a kernel."""
tid: _Integer
"""The thread id, of the same namespace."""
uid: _Integer
"""The real user id."""
user_stack: _Integer
"""The program's stack, as a key or in an event."""

def address_of(name: str) -> Any:
    """A pointer to the function or global variable *name*."""

def arg(number: int) -> Any:
    """Argument *number*, from 1, as the kernel's `$argN`. Only at functions."""

def cast(value: object, ctype: object) -> Any:
    """*value* as a pointer or integer of *ctype*: `cast(arg(1), "struct file *")`."""

def container_of(address: object, ctype: object, member: str) -> Any:
    """The struct around a member: `container_of(p, "struct request", "queuelist")`."""

def deref(address: object, ctype: object = "u64") -> int:
    """What lies at *address*, read as *ctype*."""

def dump_stack() -> None:
    """Sends an event with the stack, the CPU and the thread."""

def emit(*values: object, **named: object) -> None:
    """Sends one event; positional values are named after their text."""

def errname(value: object) -> int:
    """*value*, shown as an error's name: `errname(ret)` prints `ENOENT` for -2."""

def flags(value: object, names: object) -> int:
    """The value, shown as a set of flags: `flags(x, "enum ...")`, or a class of `enum.IntFlag`."""

def htonl(value: object) -> int:
    """*value* with its 4 bytes swapped."""

def htons(value: object) -> int:
    """*value* with its 2 bytes swapped."""

def instruction_pointer(regs: Registers) -> int:
    """`regs.ip`."""

def ipv4(address: object) -> int:
    """An IPv4 address as the network has it, shown as `192.0.2.1`."""

def jprobe_return() -> None:
    """Nothing: it ends the entry of a Jprobe, for those who are used to it."""

def kernel_stack_pointer(regs: Registers) -> int:
    """`regs.sp`."""

def log(text: str) -> None:
    """Sends one line of text, an f-string."""

def ntohl(value: object) -> int:
    """*value* with its 4 bytes swapped."""

def ntohs(value: object) -> int:
    """*value* with its 2 bytes swapped."""

def offsetof(ctype: object, member: str) -> int:
    """Where in a struct a member lies: `offsetof("struct file", "f_path.dentry")`."""

def percpu(name: str, ctype: object = None, cpu: int | None = None) -> Any:
    """A per-CPU variable, of this CPU or of *cpu*: `percpu("runqueues").nr_running`. Only in a kernel."""

def pr_info(text: str) -> None:
    """The same as `log`."""

def printk(text: str) -> None:
    """The same as `log`."""

def regs_get_kernel_argument(regs: Registers, number: int) -> int:
    """The integer argument *number*, from 0: one of six registers. Only at functions."""

def regs_return_value(regs: Registers) -> int:
    """What the probed function returned, as an `unsigned long`. Only at returns."""

def return_from_function(value: object = 0) -> None:
    """Leaves the probed function at its entry, with *value*. Only with `unsafe=True` or `--unsafe`."""

def sizeof(ctype: object) -> int:
    """The size of a type in bytes: `sizeof("struct sock")`, `sizeof(Header)`."""

def skip() -> None:
    """Doesn't run the probed instruction. Only with `unsafe=True` or `--unsafe`."""

def string(address: object, size: int = 64) -> str:
    """The NUL-terminated string at *address*, at most *size* - 1 bytes."""

def symbol(address: object) -> int:
    """*address*, shown as a symbol."""

def user_string(address: object, size: int = 64) -> str:
    """The same, always in the memory of the process."""

def var(name: str, ctype: object = None) -> Any:
    """A global variable: `var("init_task").comm`, `var("x", "u64")` if nothing tells its type."""
