"""What differs from kernel to kernel: facts keyed by feature, then by the first of the known kernels that has it.

The known kernels are Debian's 5.10, 6.1, 6.12 and 7.2, whose own answers decide. A kernel between two of them is taken
for the lower one.
"""

from __future__ import annotations

from kprobes.arch.registers import registers
from kprobes.errors import UsageError
from kprobes.frozen import dataclass
from kprobes.model.definition import Register

KERNELS = ("5.10", "6.1", "6.12", "7.2")
DEFAULT = "6.1"

MAX_EVENT_NAME = 64
MAX_ARGUMENTS = 128
MAX_BODY = 63
MAX_NAME = 32
MAX_ARRAY = 64
MAX_EVENT_SIZE = 3072
MAX_OPERATIONS = 15
MAX_ACTIVE = 4096
MAX_EXPANSION = 128
MAX_DENTRY_EXPANSION = 256
MAX_LINE = 4094
MAX_STACK = 2048  # words in a kernel stack of 16 KiB


@dataclass(frozen=True, slots=True)
class Feature:
    """One difference: *since* is the first known kernel that has it; *example* shows it, *text* says it."""

    name: str
    since: str
    text: str
    example: str = ""


FEATURES = (
    Feature("symstr", "6.1", "type `symstr`: the symbol's name as a string", "p vfs_read %ip:symstr"),
    Feature("dotted", "6.1", "`.` separates group and event, too", "p:mine.read vfs_read"),
    Feature("hyphen", "6.1", "a group's name may hold `-`", "p:my-own/read vfs_read"),
    Feature("group_alone", "6.1", "the event's name may be left out behind the group", "p:mine/ vfs_read"),
    Feature("group_delete", "6.1", "`-:GROUP/` deletes all events of a group", "-:mine/"),
    Feature("bare_minus", "6.1", "a deletion has no blank before its `-`; one with is refused", " -:mine/read"),
    Feature("long_carets", "6.1", "the error log holds whole commands; 5.10 cuts them, and columns wrap at 256"),
    Feature("folded", "6.1", "`+4` on a function that begins with ENDBR64 is its entry, and can be a return probe"),
    Feature("deferred_address", "6.1", "an address outside of all symbols is accepted, and never hit", "p 1"),
    Feature("char", "6.12", "type `char`: a character", "p vfs_read +0(%si):char"),
    Feature("btf", "6.12", "parameters by name, with `->` and `.` into structures", "p vfs_read size=count"),
    Feature("all_arguments", "6.12", "`$arg*`: all parameters", "p vfs_read $arg*"),
    Feature("return_arguments", "6.12", "`$argN` and parameters on a return probe: their values at the entry"),
    Feature(
        "dentry", "6.12", "`:%pd` and `:%pD`: the name of a dentry, of a file's dentry", "p vfs_read name=$arg1:%pD"
    ),
    Feature(
        "early_symbols",
        "6.12",
        "an unknown or ambiguous symbol is EINVAL (ENOENT, EADDRNOTAVAIL before), also in modules",
    ),
    Feature("argument_limit", "6.12", "more than 128 arguments are refused (dropped before)"),
    Feature("kernel_types", "6.12", "types `symbol` and `symstr` are refused for uprobes"),
    Feature("exact_delete", "6.12", "a deletion compares arguments whole (their first 63 characters before)"),
    Feature("two_steps", "6.12", "too long or too deep arguments are E2BIG; a wrong type for `$comm` has a message"),
    Feature("star_names", "6.12", "`*` in a default event name becomes `_`"),
    Feature("limit_message", "7.2", "too many arguments have a message"),
    Feature("own_first", "7.2", "a symbol of the kernel proper hides those of that name in modules"),
    Feature(
        "saturating", "7.2", "a number beyond 64 bits in a bit-field is the greatest there is (cut to 64 bits before)"
    ),
    Feature("typecast", "7.2", "`(`type`)` has a message of its own", "p vfs_read (file)$arg1"),
    Feature("dynamic_message", "7.2", "dynamic_events says so of a line that is no event"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What differs from architecture to architecture: *registers* by name, the *bits* of a `long`, where the kernel's
    half of the addresses begins, and how far *behind* a function's first byte is still its entry (0: nowhere)."""

    name: str
    registers: dict[str, Register]
    bits: int
    kernel_half: int
    endbr: int = 0

    @property
    def default_type(self) -> str:
        """Return the type of an argument that names none."""
        return f"x{self.bits}"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The language of one known kernel: *name*, and a flag for each of `FEATURES`. *asked* is the version asked for,
    *machine* the architecture."""

    name: str
    asked: str
    machine: Machine
    symstr: bool
    dotted: bool
    hyphen: bool
    group_alone: bool
    group_delete: bool
    bare_minus: bool
    long_carets: bool
    folded: bool
    deferred_address: bool
    char: bool
    btf: bool
    all_arguments: bool
    return_arguments: bool
    dentry: bool
    early_symbols: bool
    argument_limit: bool
    kernel_types: bool
    exact_delete: bool
    two_steps: bool
    star_names: bool
    limit_message: bool
    own_first: bool
    saturating: bool
    typecast: bool
    dynamic_message: bool

    @property
    def exact(self) -> bool:
        """Return whether the version asked for is known itself."""
        return self.name == self.asked

    @property
    def note(self) -> str:
        """Return what is to be said where another kernel stands in for the one asked for; else nothing."""
        if self.exact:
            return ""
        return f"checked as {self.name}: {self.asked} is not among the known kernels ({', '.join(KERNELS)})"


def dialect(kernel: str = DEFAULT, arch: str = "x86_64") -> Dialect:
    """Return the language of *kernel* (`6.1`, `6.6.30-generic`) on *arch*: that of the nearest lower known kernel.

    Raises:
        UsageError: *kernel* is no version, or older than all that are known.
        UnsupportedError: *arch* is not known.
    """
    found = _DIALECTS.get((kernel, arch))
    if found is None:
        version = _version(kernel)
        lower = [name for name in KERNELS if _version(name) <= version]
        if not lower:
            raise UsageError(f"kernel {kernel} is too old to know its rules", hint=f"known: {', '.join(KERNELS)}")
        asked = f"{version[0]}.{version[1]}"
        found = _DIALECTS[kernel, arch] = _made(lower[-1], asked, arch)
    return found


def _version(kernel: str) -> tuple[int, int]:
    parts = kernel.partition("-")[0].partition("+")[0].split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        raise UsageError(f"no kernel version {kernel!r}", hint=f"known: {', '.join(KERNELS)}")
    return int(parts[0]), int(parts[1])


def _made(name: str, asked: str, arch: str) -> Dialect:
    rank = KERNELS.index(name)
    return Dialect(name, asked, machine(arch), *[KERNELS.index(feature.since) <= rank for feature in FEATURES])


def machine(arch: str) -> Machine:
    """Return what is to be known of *arch*.

    Raises:
        UnsupportedError: nothing is.
    """
    table = registers(arch)
    half, endbr = _HALVES[table.name]
    return Machine(table.name, {name: Register(name) for name in table.event_names}, 8 * table.word_size, half, endbr)


# Where the kernel's addresses begin; bytes of ENDBR64, which only x86-64 has.
_HALVES = {"x86_64": (0xFFFF800000000000, 4), "aarch64": (0xFFFF000000000000, 0), "i386": (0xC0000000, 0)}
_DIALECTS = {(name, "x86_64"): _made(name, name, "x86_64") for name in KERNELS}
