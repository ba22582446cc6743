"""What the BPF back is asked for, and what it gives back."""

from __future__ import annotations

from kprobes.errors import InternalError
from kprobes.frozen import dataclass
from kprobes.model.layout import SITE_COUNTER_BYTES, MapLayout
from kprobes.model.plan import RETURN_WAYS, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.plan import Program

KERNEL_REGISTER_WAYS = frozenset({Way.KPROBE, Way.KRETPROBE, Way.KPROBE_MULTI, Way.KRETPROBE_MULTI})
USER_WAYS = frozenset({Way.UPROBE, Way.URETPROBE})
REGISTER_WAYS = KERNEL_REGISTER_WAYS | USER_WAYS
TRAMPOLINE_WAYS = frozenset({Way.FENTRY, Way.FEXIT})
# The context is an array of u64 arguments.
ARRAY_WAYS = TRAMPOLINE_WAYS | {Way.RAW_TRACEPOINT}

# A user's map never begins with a dot.
STATS, RING, STACKS = ".stats", ".ring", ".stacks"

STACK_DEPTH = 127  # PERF_MAX_STACK_DEPTH, the kernel's default
DEFAULT_RING_BYTES = 1 << 20
DEFAULT_STACKS = 8192


@dataclass(frozen=True, slots=True)
class BpfTarget:
    """Where a handler is to run.

    *entry_way* and *exit_way* are values of `Way`, empty for a part that isn't there. *sites* is the number of sites
    of the whole plan. *site* is the handler's one site; where it has several, None, and *cookie* tells how a program
    learns its site (`site`: loaded once per site, `cookie`: bpf_get_attach_cookie). *shards* is a power of two, at
    least the number of possible CPUs. *argument_count* is that of the probed function, for fentry and fexit, and
    *pointers* tells which of its arguments (by index from 0; *argument_count* is the return value) are pointers to
    structs, None where that is not known; those in *untyped* are of types that the verifier lets no program read.
    *cpu* is LLVM's BPF level (v3 suits every kernel since 5.10). *compare_exchange* says that the kernel has atomic
    operations that return a value (since 5.12). *calls* bounds the calls in flight of a return probe.
    *ring_bytes* and *stacks* size the shared maps.
    """

    entry_way: str = ""
    exit_way: str = ""
    sites: int = 1
    site: int | None = 0
    cookie: str = "site"
    shards: int = 1
    argument_count: int = 0
    pointers: frozenset[int] | None = None
    untyped: frozenset[int] = frozenset()
    cpu: str = "v3"
    compare_exchange: bool = True
    calls: int = 16384
    ring_bytes: int = DEFAULT_RING_BYTES
    stacks: int = DEFAULT_STACKS

    @property
    def learns_site_by(self) -> str:
        """Return `none`, `site` or `cookie`, as `Program.cookie` has it."""
        return "none" if self.site is not None else self.cookie

    def check(self) -> None:
        """Raise InternalError unless the fields fit together."""
        if self.shards < 1 or self.shards & (self.shards - 1):
            raise InternalError(f"{self.shards} shards are no power of two")
        if self.site is not None and not 0 <= self.site < self.sites:
            raise InternalError(f"site {self.site} of {self.sites}")
        if self.exit_way and self.exit_way not in RETURN_WAYS:
            raise InternalError(f"{self.exit_way} is no way to see a return")
        if self.entry_way and self.exit_way and frame_kind(self.entry_way) != frame_kind(self.exit_way):
            raise InternalError(f"a call seen by {self.entry_way} can't be matched with {self.exit_way}")


@dataclass(frozen=True, slots=True)
class Lowered:
    """The programs of one handler, return program first, and the maps they need besides the handler's own."""

    programs: tuple[Program, ...]
    maps: tuple[MapLayout, ...]


def frame_kind(way: str) -> str:
    """Return by what a call is known: `trampoline` frame, `kernel` stack pointer, `user` stack pointer of a thread."""
    if way in TRAMPOLINE_WAYS:
        return "trampoline"
    if way in KERNEL_REGISTER_WAYS:
        return "kernel"
    return "user" if way in USER_WAYS else ""


def stats_layout(target: BpfTarget) -> MapLayout:
    """Return the layout of the site counters."""
    return MapLayout(STATS, "stats", 4, target.shards * target.sites * SITE_COUNTER_BYTES, 1, shards=target.shards)


def ring_layout(target: BpfTarget) -> MapLayout:
    """Return the layout of the ring."""
    return MapLayout(RING, "ring", 0, 0, target.ring_bytes)


def stacks_layout(target: BpfTarget) -> MapLayout:
    """Return the layout of the stack map."""
    return MapLayout(STACKS, "stacks", 4, 8 * STACK_DEPTH, target.stacks)
