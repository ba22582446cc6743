"""The builtins of the handler language: one table, one row each.

From it work the compiler's front (which binds a maker to each name), the importable words of `model.words`, the
stub `kprobes/__init__.pyi` that editors read, the table in docs/language.md and the names that error messages offer.

To add a builtin:

1. Write its row here.
2. An integer of the world (`world=True`) is done in the front; it takes a number in `compiler.ir.world` and an emitter
   in each back: `compiler.back.bpf.builtins` and `compiler.back.native.world`. Anything else takes a maker in
   `compiler.front.builtins.MAKERS`, which gets the arguments by their names.
3. Run `scripts/words`, which writes the stub and the table of the documentation anew.

Tests hold each of these against the table.
"""

from __future__ import annotations

from kprobes.frozen import dataclass

EVERYWHERE = "kernel process"  # engines: BPF in a kernel (also for uprobes), native code inside of a process
REQUIRED = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a builtin: its *type* and *default* as Python texts; without default it must be given.

    *name* begins with `*` or `**` where it takes any number of arguments.
    """

    name: str
    type: str = "object"
    default: str = REQUIRED

    @property
    def text(self) -> str:
        """Return the parameter as a signature shows it."""
        return f"{self.name}: {self.type}" + (f" = {self.default}" if self.default else "")


@dataclass(frozen=True, slots=True)
class Builtin:
    """One word of the language.

    *result* is a C integer type (`u64`) or what a Python signature says (`str`, `None`); *shown* how an integer is
    shown where that is not plain (see `model.layout.Field`). *doc* says what the word gives, for all its readers, and
    *only* where it can be used, where that is not everywhere. *engines* are those that have it; *kinds* the kinds of
    probes, all if empty; *needs* what the probe must say: `on_fault` or `unsafe`. *world*: an integer that the IR
    knows by this name, of which the front makes the term unless it has a maker. *effect*: its call may stand alone.
    *python*: Python's own, not importable from kprobes. *is_object*: it is no function.
    """

    name: str
    result: str
    doc: str
    parameters: tuple[Parameter, ...] = ()
    shown: str = ""
    only: str = ""
    engines: str = EVERYWHERE
    kinds: str = ""
    needs: str = ""
    world: bool = False
    effect: bool = False
    python: bool = False
    is_object: bool = False

    @property
    def bare(self) -> bool:
        """Whether the word alone is its call: `comm` is `comm()`."""
        return not self.is_object and not self.effect and not self.required and not self.many

    @property
    def fields(self) -> bool:
        """Whether it is an object whose attributes mean something."""
        return self.result in ("Registers", "Task")

    @property
    def many(self) -> bool:
        """Whether it takes any number of arguments."""
        return any(parameter.name.startswith("*") for parameter in self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def required(self) -> int:
        """How many parameters, from the first, must be given."""
        return sum(not parameter.default and not parameter.name.startswith("*") for parameter in self.parameters)

    @property
    def python_result(self) -> str:
        """What a Python signature says of the result."""
        return "int" if self.result[1:].isdigit() else self.result

    @property
    def docstring(self) -> str:
        """What an editor shows."""
        only = f" Only {self.only}." if self.only and not self.only.startswith("not") else ""
        return f"{self.doc[0].upper()}{self.doc[1:]}.{only}"

    @property
    def signature(self) -> str:
        """The word as Python would declare it, without `def`."""
        if self.is_object:
            return self.name
        return f"{self.name}({', '.join(parameter.text for parameter in self.parameters)}) -> {self.python_result}"


_ADDRESS = Parameter("address")
_VALUE = Parameter("value")
_SIZE = Parameter("size", "int", "64")
_REGS = Parameter("regs", "Registers")
_FUNCTIONS = "kprobe kretprobe uprobe uretprobe"
_FAULTS = "with `on_fault=True`, in a process"
_UNSAFE = "with `unsafe=True` or `--unsafe`"

TABLE = (
    # Time and identity.
    Builtin("now", "u64", "the time in ns since boot, monotonic", world=True),
    Builtin(
        "cycles", "u64", "the CPU's time stamp counter: cheaper than `now()`, in ticks of a constant rate",
        only="in a process", engines="process", world=True,
    ),
    Builtin(
        "pid", "u32", "the process id: the host's in a kernel, inside of a process that of its namespace", world=True,
    ),
    Builtin("tid", "u32", "the thread id, of the same namespace", world=True),
    Builtin("ns_pid", "u32", "the process id as its own namespace has it: in a container that of the container"),
    Builtin("ns_tid", "u32", "the thread id, of the same namespace"),
    Builtin("host_pid", "u32", "the process id as the host has it (in a process: as the prober has it)", world=True),
    Builtin("host_tid", "u32", "the thread id as the host has it", only="in a kernel", engines="kernel", world=True),
    Builtin("uid", "u32", "the real user id", world=True),
    Builtin("gid", "u32", "the real group id", world=True),
    Builtin("comm", "str", "the name of the running thread, at most 15 bytes"),
    Builtin("cpu", "u32", "the number of the CPU", world=True),
    Builtin("cgroup", "u64", "the id of the cgroup (version 2), shown as its path or container", shown="cgroup",
            only="in a kernel", engines="kernel", world=True),
    Builtin("random", "u32", "32 random bits", world=True),
    # The hit.
    Builtin(
        "stack", "i64", "the kernel's stack (inside of a process: the program's), as a key (`by=Stack`) or in an event",
        shown="stack", world=True,
    ),
    Builtin("user_stack", "i64", "the program's stack, as a key or in an event", shown="user_stack", world=True),
    Builtin("retval", "Any", "what the probed function returned", only="at returns", kinds="kretprobe uretprobe"),
    Builtin(
        "arg", "Any", "argument *number*, from 1, as the kernel's `$argN`", (Parameter("number", "int"),),
        only="at functions", kinds=_FUNCTIONS,
    ),
    Builtin(
        "args", "Any", "all parameters: `emit(*args)`, `args.count`", only="not at other instructions",
    ),
    Builtin(
        "regs", "Registers", "the registers: `regs.di` or `regs.rdi`, all those of `struct pt_regs`",
        only="not in tracepoints", kinds=_FUNCTIONS, is_object=True,
    ),
    Builtin("instruction_pointer", "u64", "`regs.ip`", (_REGS,), shown="hex", only="not in tracepoints",
            kinds=_FUNCTIONS),
    Builtin("kernel_stack_pointer", "u64", "`regs.sp`", (_REGS,), shown="hex", only="not in tracepoints",
            kinds=_FUNCTIONS),
    Builtin("regs_return_value", "u64", "what the probed function returned, as an `unsigned long`", (_REGS,),
            only="at returns", kinds=_FUNCTIONS),
    Builtin("regs_get_kernel_argument", "u64", "the integer argument *number*, from 0: one of six registers",
            (_REGS, Parameter("number", "int")), only="at functions", kinds=_FUNCTIONS),
    Builtin("function", "u64", "the address of the probe, shown as a symbol", shown="symbol", only="not in tracepoints",
            kinds=_FUNCTIONS),
    Builtin("fault_signal", "u32", "the number of the signal of the fault", only=_FAULTS, engines="process",
            kinds="uprobe", needs="on_fault", world=True),
    Builtin("fault_address", "u64", "the address that the fault is about (`si_addr`)", shown="hex", only=_FAULTS,
            engines="process", kinds="uprobe", needs="on_fault", world=True),
    Builtin(
        "task", "Task", "the `struct task_struct *` of the running thread", only="in a kernel", engines="kernel",
        world=True,
    ),
    Builtin("current", "Task", "the same as `task()`", only="in a kernel", engines="kernel"),
    # Memory.
    Builtin("string", "str", "the NUL-terminated string at *address*, at most *size* - 1 bytes", (_ADDRESS, _SIZE)),
    Builtin("user_string", "str", "the same, always in the memory of the process", (_ADDRESS, _SIZE)),
    Builtin("deref", "int", "what lies at *address*, read as *ctype*",
            (_ADDRESS, Parameter("ctype", "object", '"u64"'))),
    Builtin("var", "Any", 'a global variable: `var("init_task").comm`, `var("x", "u64")` if nothing tells its type',
            (Parameter("name", "str"), Parameter("ctype", "object", "None"))),
    Builtin("percpu", "Any", 'a per-CPU variable, of this CPU or of *cpu*: `percpu("runqueues").nr_running`',
            (Parameter("name", "str"), Parameter("ctype", "object", "None"), Parameter("cpu", "int | None", "None")),
            only="in a kernel", engines="kernel", kinds="kprobe kretprobe tracepoint"),
    Builtin("address_of", "Any", "a pointer to the function or global variable *name*", (Parameter("name", "str"),)),
    # Values.
    Builtin("cast", "Any", '*value* as a pointer or integer of *ctype*: `cast(arg(1), "struct file *")`',
            (_VALUE, Parameter("ctype"))),
    Builtin("sizeof", "int", 'the size of a type in bytes: `sizeof("struct sock")`, `sizeof(Header)`',
            (Parameter("ctype"),)),
    Builtin("offsetof", "int", 'where in a struct a member lies: `offsetof("struct file", "f_path.dentry")`',
            (Parameter("ctype"), Parameter("member", "str"))),
    Builtin("container_of", "Any",
            'the struct around a member: `container_of(p, "struct request", "queuelist")`',
            (_ADDRESS, Parameter("ctype"), Parameter("member", "str"))),
    Builtin("flags", "int", 'the value, shown as a set of flags: `flags(x, "enum ...")`, or a class of `enum.IntFlag`',
            (_VALUE, Parameter("names"))),
    Builtin("errname", "int", "*value*, shown as an error's name: `errname(ret)` prints `ENOENT` for -2", (_VALUE,)),
    Builtin("ipv4", "int", "an IPv4 address as the network has it, shown as `192.0.2.1`", (_ADDRESS,),
            shown="ipv4"),
    Builtin("symbol", "u64", "*address*, shown as a symbol", (_ADDRESS,), shown="symbol"),
    Builtin("hex", "int", "*value*, shown in hexadecimal", (_VALUE,), python=True),
    Builtin("int", "i64", "*value* as an `i64`", (_VALUE,), python=True),
    Builtin("bool", "bool", "whether *value* is not 0", (_VALUE,), python=True),
    Builtin("abs", "int", "*value* without its sign", (_VALUE,), python=True),
    Builtin("len", "int", "the length of a string in bytes, of a tuple or a C array", (_VALUE,), python=True),
    Builtin("min", "int", "the least of the values", (Parameter("*values"),), python=True),
    Builtin("max", "int", "the greatest of the values", (Parameter("*values"),), python=True),
    Builtin("range", "range", "the numbers of a `for` loop", (Parameter("*bounds", "int"),), only="in `for` loops",
            python=True, is_object=True),
    Builtin("ntohs", "u16", "*value* with its 2 bytes swapped", (_VALUE,)),
    Builtin("htons", "u16", "*value* with its 2 bytes swapped", (_VALUE,)),
    Builtin("ntohl", "u32", "*value* with its 4 bytes swapped", (_VALUE,)),
    Builtin("htonl", "u32", "*value* with its 4 bytes swapped", (_VALUE,)),
    # Effects.
    Builtin("emit", "None", "sends one event; positional values are named after their text",
            (Parameter("*values"), Parameter("**named")), effect=True),
    Builtin("log", "None", "sends one line of text, an f-string", (Parameter("text", "str"),), effect=True),
    Builtin("printk", "None", "the same as `log`", (Parameter("text", "str"),), effect=True),
    Builtin("pr_info", "None", "the same as `log`", (Parameter("text", "str"),), effect=True),
    Builtin("dump_stack", "None", "sends an event with the stack, the CPU and the thread", effect=True),
    Builtin("jprobe_return", "None", "nothing: it ends the entry of a Jprobe, for those who are used to it",
            kinds=_FUNCTIONS, effect=True),
    Builtin("skip", "None", "doesn't run the probed instruction", only=_UNSAFE, kinds=_FUNCTIONS, needs="unsafe",
            effect=True),
    Builtin(
        "return_from_function", "None", "leaves the probed function at its entry, with *value*",
        (Parameter("value", "object", "0"),), only=_UNSAFE, kinds=_FUNCTIONS, needs="unsafe", effect=True,
    ),
)  # fmt: skip

BUILTINS = {row.name: row for row in TABLE}
