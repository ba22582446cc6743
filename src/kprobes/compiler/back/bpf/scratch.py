"""Working memory outside the stack, for buffers that its 512 bytes don't hold: one value a CPU, of one program.

The value begins with a word that says whether it is in use. Programs of the kernel's functions need no such word: they
run to their end before another one of them begins on that CPU, or the kernel skips the second one (and counts it). A
uprobe's program may be preempted on kernels built for that; then another hit on the same CPU counts as missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.part import SCRATCH_HEADER
from kprobes.compiler.back.bpf.target import USER_WAYS
from kprobes.model.layout import MapLayout

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
    if part.way in USER_WAYS:
        _guard(part)
    text.fix()


def _guard(part: BpfPart) -> None:
    text = part.text
    taken, free = text.label("taken"), text.label("free")
    in_use = text.let("load volatile i64, ptr %scratch, align 8")
    text.unlikely(text.let(f"icmp ne i64 {in_use}, 0"), taken, free)
    text.start(taken)
    part.count("missed")
    text.give_back("0")
    text.start(free)
    text.do("store volatile i64 1, ptr %scratch, align 8")
    text.barrier()


def release_scratch(part: BpfPart) -> None:
    """Let the working memory go; comes before each end of the program."""
    if part.scratch_size > 0 and part.way in USER_WAYS:
        part.text.barrier()
        part.text.do("store volatile i64 0, ptr %scratch, align 8")
