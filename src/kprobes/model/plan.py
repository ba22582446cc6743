"""The plan: everything an engine needs to carry out probes, compiled and resolved.

A plan is plain data: it is cached on disk, sent into a guest, and bundled. An engine creates the maps, loads the
programs,
attaches the links and hands the bytes of ring and maps back; it never compiles and never looks up a name.
"""

from __future__ import annotations

from kprobes.frozen import dataclass
from kprobes.model.caution import Caution
from kprobes.model.layout import EventLayout, MapLayout

PLAN_VERSION = 1


class Way:
    """How a program gets in. Values are stable: they stand in plans and in `kprobes list`."""

    FENTRY = "fentry"
    FEXIT = "fexit"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"
    KPROBE_MULTI = "kprobe.multi"
    KRETPROBE_MULTI = "kretprobe.multi"
    UPROBE = "uprobe"
    URETPROBE = "uretprobe"
    TRACEFS = "tracefs"
    TRACEPOINT = "tracepoint"
    RAW_TRACEPOINT = "raw_tracepoint"
    JUMP = "jump"
    JUMP_CALL = "jump.call"
    JUMP_BLOCK = "jump.block"
    JUMP_PUNNED = "jump.punned"
    JUMP_ISLAND = "jump.island"
    JUMP_EVICTION = "jump.eviction"
    BREAKPOINT = "breakpoint"
    FAULT = "fault"


RETURN_WAYS = frozenset({Way.FEXIT, Way.KRETPROBE, Way.KRETPROBE_MULTI, Way.URETPROBE})
BTF_WAYS = frozenset({Way.FENTRY, Way.FEXIT})
MULTI_WAYS = frozenset({Way.KPROBE_MULTI, Way.KRETPROBE_MULTI})


@dataclass(frozen=True, slots=True)
class Site:
    """One resolved place of a probe. Its index in `Plan.sites` is the site number that records and counters carry.

    Kernel: *symbol* + *offset*, *address* as kallsyms has it (0 where hidden), *module* (empty for vmlinux).
    File (uprobes): *path* and *address* = file offset; *counter* is the file offset of the 16-bit counter that is one
    more while it is probed, 0 for none. Tracepoint: *symbol* = `category:name`.
    Process engine: as for files, and *size* is that of the function *symbol* (0 where unknown); with no *path*,
    *address* is one of the process (code that comes from no file).
    """

    probe: int
    name: str
    symbol: str = ""
    offset: int = 0
    address: int = 0
    module: str = ""
    path: str = ""
    btf_id: int = 0
    size: int = 0
    counter: int = 0


@dataclass(frozen=True, slots=True)
class Relocation:
    """What an engine writes into the 16-byte `ld_imm64` at instruction *index* when it loads a program.

    *kind*: `map` (the map's descriptor, BPF_PSEUDO_MAP_FD), `map_value` (address of the map's first value plus
    *addend*,
    BPF_PSEUDO_MAP_VALUE), `site` (the number of the site, a plain constant; only in programs loaded once per site).
    """

    index: int
    kind: str
    map: str = ""
    addend: int = 0


@dataclass(frozen=True, slots=True)
class SourceLine:
    """Instruction *index* and those after it come from *line* (from 1), *column* (from 0) of *file*; *text* is that
    line."""

    index: int
    file: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Program:
    """One BPF program: 8-byte instructions before relocation.

    *btf* is a BTF blob for BPF_BTF_LOAD (may be empty); *func_info* and *line_info* are the raw records of 8 and 16
    bytes
    that BPF_PROG_LOAD takes, with instruction offsets counted in instructions.
    *cookie*: where the program learns its site number: `none` (one site, constant), `site` (relocated, one load per
    site),
    `cookie` (bpf_get_attach_cookie; one load for all sites).
    """

    name: str
    way: str
    instructions: bytes
    relocations: tuple[Relocation, ...] = ()
    btf: bytes = b""
    func_info: bytes = b""
    line_info: bytes = b""
    lines: tuple[SourceLine, ...] = ()
    cookie: str = "none"
    license: str = "Dual MIT/GPL"


@dataclass(frozen=True, slots=True)
class NativeRelocation:
    """An 8-byte address that the process engine writes into native code at *offset*.

    *kind*: `map` (the map's first byte plus *addend*, as the target sees it), `helper` (a routine of the engine), or
    `code` (the program's own first byte).
    """

    offset: int
    kind: str
    name: str
    addend: int = 0


ON_FAULT = "fault"  # `NativeProgram.part`

# What a native program returns, bits that may come together.
LEFT, OMITTED = 1, 2


@dataclass(frozen=True, slots=True)
class NativeProgram:
    """One handler as x86-64 code for the process engine: position-independent, entered at *entry* by a call.

    Arguments (C ABI): `struct pt_regs *`, the number of the site, the thread's block (docs/process-engine.md). It keeps
    to integer registers, finds its stack aligned, and calls nothing but helpers.

    *reads* names the fields of pt_regs it looks at; with *writes* it may change registers, which are then put back from
    pt_regs; with *skips* it may also change the instruction pointer, and returns `LEFT` where it has; with *omits*
    it may return `OMITTED`: the probed instruction is then left out. *clobbers* are the caller-saved registers that it
    changes, all of them where that isn't known.

    *part*: `entry` runs at the site itself; `exit` at each way out of the function that begins there; `return` too, as
    the other half of an `entry` that has counted the call. With *after* these run behind the site's instruction
    instead, and get as fourth argument by how many bytes that has moved the stack pointer. `fault` runs when the site's
    instruction has faulted, and finds the signal's number and address (u64 each) behind pt_regs.
    """

    name: str
    code: bytes
    entry: int = 0
    relocations: tuple[NativeRelocation, ...] = ()
    reads: tuple[str, ...] = ()
    writes: bool = False
    skips: bool = False
    omits: bool = False
    part: str = "entry"
    after: bool = False
    clobbers: tuple[str, ...] = ("ax", "cx", "dx", "si", "di", "r8", "r9", "r10", "r11")


@dataclass(frozen=True, slots=True)
class CodeObject:
    """What an engine must know of an executable file to change its code: *functions* are (start, end) file offsets.

    *entries* are further file offsets at which code may be entered (landing pads, symbols without size). *branches* are
    where direct branches go, as `model.branches` packs them; empty where nobody has looked.
    """

    path: str
    functions: tuple[tuple[int, int], ...]
    entries: tuple[int, ...] = ()
    branches: bytes = b""


@dataclass(frozen=True, slots=True)
class Unwinding:
    """How frames of the code of the file *path* are found: *rows* as `symbols.unwind` makes them."""

    path: str
    rows: bytes


@dataclass(frozen=True, slots=True)
class Assertion:
    """An `assert` of a handler: the Count *map* counts how often it failed.

    *line* counts from 1; *text* is the condition as written, *message* the text behind it.
    """

    map: str
    file: str
    line: int
    text: str
    message: str = ""


COUNT_ONLY = -1


@dataclass(frozen=True, slots=True)
class Attachment:
    """Program number *program* at the sites *sites* (numbers in `Plan.sites`).

    In a plan for the process engine *program* is a number in `Plan.natives`, or COUNT_ONLY: hits are counted, no more.
    *maxactive* is for kretprobes (0: the kernel's default); *pid* limits uprobes to a process (-1: all).
    """

    program: int
    sites: tuple[int, ...]
    maxactive: int = 0
    pid: int = -1


@dataclass(frozen=True, slots=True)
class PlannedProbe:
    """What the user asked for, for display: `kprobe`, `vfs_read`, and the ways taken (`fentry` + `fexit`).

    *is_glob*: its sites were found by a glob, so the process engine leaves those out that can't be armed. *is_pending*:
    its sites may lie in files that the process maps later; they are armed then. *asked*: its place among the probes
    that were asked for. *event* is the name of a definition's event, empty for other probes.
    """

    kind: str
    text: str
    ways: tuple[str, ...]
    is_glob: bool = False
    is_pending: bool = False
    asked: int = 0
    event: str = ""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """A probe event to be defined in tracefs for the site number *site*.

    *definition* is as the kernel lists it; with *private* its group is only the kernel's default, and is replaced by
    one of ours. *event* is the number of the `EventLayout` that its records become, COUNT_ONLY where only its hits
    count. *filter* is an event filter, empty for none; *pid* limits uprobes to a process (-1: all).
    """

    site: int
    definition: str
    event: int = COUNT_ONLY
    private: bool = True
    filter: str = ""
    pid: int = -1


@dataclass(frozen=True, slots=True)
class Plan:
    """Maps, programs, attachments, sites and event layouts.

    Attachments are made in order: return programs come before the entry programs that depend on them, so that no
    entry is
    recorded whose return can't be seen. *key* says for which target the plan holds (kernel build-id); *notes* are
    remarks about the places for the user, *cautions* warnings about the handlers. *sources* are the files that it
    depends on besides those of its sites. *traced* are the events of a plan that goes by tracefs; it has no programs.
    """

    probes: tuple[PlannedProbe, ...]
    sites: tuple[Site, ...]
    maps: tuple[MapLayout, ...]
    programs: tuple[Program, ...]
    attachments: tuple[Attachment, ...]
    events: tuple[EventLayout, ...]
    key: str = ""
    notes: tuple[str, ...] = ()
    version: int = PLAN_VERSION
    natives: tuple[NativeProgram, ...] = ()
    objects: tuple[CodeObject, ...] = ()
    unwinding: tuple[Unwinding, ...] = ()
    cautions: tuple[Caution, ...] = ()
    sources: tuple[str, ...] = ()
    asserts: tuple[Assertion, ...] = ()
    traced: tuple[TraceEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteStats:
    """Counts of one site since attach. *missed* are hits whose handler could not run or whose entry was not seen."""

    site: int
    hits: int
    missed: int
    lost: int
    faults: int


@dataclass(frozen=True, slots=True)
class LinkStats:
    """What the kernel itself counted for one program: *missed* is `nmissed` plus recursion misses, -1 where this
    kernel does
    not tell."""

    program: int
    way: str
    sites: tuple[int, ...]
    missed: int
