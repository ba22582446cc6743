"""Working memory outside the stack, for buffers that its 512 bytes don't hold: one value a CPU, of one program.

No two hits may have it at a time. A program never leaves its CPU, so there are two ways for another hit to come in
between: an interrupt (or NMI) whose own code is probed, and a preemption. Who keeps them out:

- Programs of kprobes, kretprobes (also kprobe.multi) and tracepoints run one at a time on a CPU, whichever they are:
  the kernel counts them in `bpf_prog_active`, skips a second one and counts it as missed. Preemption is off meanwhile.
- Programs of fentry and fexit may be preempted, on 7.2 also by default. Since 5.12 each runs once at a time on a CPU
  (`prog->active`); the kernel skips and counts the second hit. Before that only preemption is off.
- Programs of raw tracepoints have the same count since 6.1.
- Programs of uprobes may be preempted (they are sleepable since 6.0), and nothing counts them.

Where nobody does, the value begins with a word that says whether it is in use, and a hit that finds it so counts as
missed. It is taken by one atomic exchange, since a preemption may come between a look and a store; where the kernel has
no such operation (before 5.12) preemption is off, and whatever interrupts between the two gives it back before it ends.

Source: kernel/trace/bpf_trace.c, kernel/bpf/trampoline.c, kernel/trace/trace_uprobe.c, Linux 5.10 to 7.2.
"""

from __future__ import annotations

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.part import SCRATCH_HEADER
from kprobes.compiler.back.bpf.target import TRAMPOLINE_WAYS, USER_WAYS
from kprobes.model.layout import MapLayout
from kprobes.model.plan import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import BpfPart


def take_scratch(part: BpfPart) -> None:
    """Find this CPU's working memory, at the beginning of the program; where it is taken the hit is missed."""
    text, target = part.text, part.target
    owner = f"{part.handler.name}.{part.function.part}.{'x' if target.site is None else target.site}"
    layout = MapLayout(f".scratch.{owner}", "scratch", 4, SCRATCH_HEADER + part.scratch_size, 1)
    part.need(layout)
    key = part.temporary("key", 8)
    text.store(32, "0", key)
    base = call(text, "map_lookup_elem", part.map(layout.name), key)
    missing, there = text.label("noscratch"), text.label("scratch")
    text.unlikely(text.let(f"icmp eq ptr {base}, null"), missing, there)
    text.start(missing)
    text.give_back("0")
    text.start(there)
    text.do(f"%scratch = getelementptr i8, ptr {base}, i64 0")
    if _needs_guard(part):
        _guard(part)
    text.fix()


def _needs_guard(part: BpfPart) -> bool:
    is_old = not part.target.compare_exchange  # before 5.12 to 5.15
    return part.way in USER_WAYS or part.way == Way.RAW_TRACEPOINT or (is_old and part.way in TRAMPOLINE_WAYS)


def _guard(part: BpfPart) -> None:
    text = part.text
    taken, free = text.label("taken"), text.label("free")
    if part.target.compare_exchange:
        in_use = text.let("atomicrmw volatile xchg ptr %scratch, i64 1 monotonic, align 8")
    else:
        in_use = text.let("load volatile i64, ptr %scratch, align 8")
    text.unlikely(text.let(f"icmp ne i64 {in_use}, 0"), taken, free)
    text.start(taken)
    part.count("missed")
    text.give_back("0")
    text.start(free)
    if not part.target.compare_exchange:
        text.do("store volatile i64 1, ptr %scratch, align 8")
    text.barrier()


def release_scratch(part: BpfPart) -> None:
    """Let the working memory go; comes before each end of the program."""
    if part.scratch_size > 0 and _needs_guard(part):
        part.text.barrier()
        part.text.do("store volatile i64 0, ptr %scratch, align 8")
