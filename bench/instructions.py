"""How many BPF instructions typical handlers become, beside clang -O2's for the same in C (`programs/handlers.bpf.c`).

Counted are 8-byte slots, as the kernel counts them. Calls in flight are kept in a hash map on both sides; the table
that newer kernels get instead is longer and quicker, and shown without a goal.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.figures import Figure
from kprobes.compiler.back.bpf import BpfTarget, lower
from kprobes.compiler.back.object import ObjectFile
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.model.mapspec import Count, HashMap, Histogram
from kprobes.model.plan import RETURN_WAYS
from kprobes.model.probe import HandlerSource
from kprobes.planner.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lab import Lab

SHARDS = 4
MAPS = {
    "calls": Count("calls", by=str),
    "sizes": Histogram("sizes"),
    "usecs": Histogram("usecs", by=str),
    "last": HashMap("last"),
}

COUNT = "def h():\n    return\n"
KEYED = "def h():\n    calls.add(by=comm)\n"
DISTRIBUTION = "def h():\n    sizes.add(retval)\n"
LATENCY = """def h():
    start = now()
    ret = yield
    if ret > 0:
        usecs.add((now() - start) // 1000, by=comm())
"""
EVENT = """def h(file, count):
    emit(pid=pid, comm=comm, name=file.f_path.dentry.d_name.name.string(32), count=count)
"""
FILTER = """def h(file, count):
    if comm() == "cat" and count > 4096 and file.f_flags & 1:
        calls.add(by=comm)
"""
DEPTH = """def h(file):
    dentry = file.f_path.dentry
    levels = 0
    for i in range(8):
        if dentry == dentry.d_parent:
            break
        dentry = dentry.d_parent
        levels += 1
    sizes.add(levels)
"""
BETWEEN = """def h():
    before = last.get(tid(), 0)
    time = now()
    last[tid()] = time
    if before:
        sizes.add(time - before)
"""
PREFIX = """def h(file):
    if file.f_path.dentry.d_name.name.string(32).startswith("lib"):
        calls.add(by=comm())
"""
REMAINDERS = "def h(count):\n    sizes.add(count % 1000 // 7 + count // 4096)\n"

# name, source, ways in, sections of the C
CASES = (
    ("count", COUNT, ("fentry",), ("count",)),
    ("count by name", KEYED, ("fentry",), ("keyed",)),
    ("distribution of results", DISTRIBUTION, ("fexit",), ("distribution",)),
    ("latency by name", LATENCY, ("kprobe", "kretprobe"), ("entry", "exit")),
    ("event of two strings", EVENT, ("fentry",), ("event",)),
    ("filter, then count", FILTER, ("kprobe",), ("filter",)),
    ("a walk to the root", DEPTH, ("kprobe",), ("depth",)),
    ("time between calls", BETWEEN, ("fentry",), ("between",)),
    ("a name's beginning", PREFIX, ("kprobe",), ("prefix",)),
    ("remainders", REMAINDERS, ("kprobe",), ("remainders",)),
)


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the slots of each handler, ours and clang's."""
    theirs = _clang(lab.directory)
    ratios = []
    for name, source, ways, sections in CASES:
        reference = sum(len(theirs.section(section)) // 8 for section in sections) if theirs else None
        figure = Figure(f"BPF instructions: {name}", _slots(source, ways), reference, "", "clang")
        ratios += [figure.ratio] if figure.ratio is not None else []
        yield figure
    middle = median(ratios) if ratios else None
    yield Figure("BPF instructions over clang's, median", middle, None, "", most=1.0, absolute=True)
    yield Figure(
        "BPF instructions: latency, calls in a table", _slots(LATENCY, ("kprobe", "kretprobe"), table=True), None, ""
    )


def _slots(source: str, ways: tuple[str, ...], *, table: bool = False) -> float:
    with KernelEngine() as engine:
        types = Places(engine.facts()).types_for("kprobe")
    kind = "kretprobe" if ways[-1] in RETURN_WAYS else "kprobe"
    around = Surroundings(kind, types, types.function("vfs_read"), shards=SHARDS)
    handler = compile_handler(HandlerSource("h", source, names=MAPS), around)
    target = BpfTarget(
        entry_way=next((way for way in ways if way not in RETURN_WAYS), ""),
        exit_way=next((way for way in ways if way in RETURN_WAYS), ""),
        shards=SHARDS,
        argument_count=4,
        pointers=frozenset({0}),
        compare_exchange=table,
    )
    return sum(len(program.instructions) // 8 for program in lower(handler, target).programs)


def _clang(directory: Path) -> ObjectFile | None:
    if not shutil.which("clang"):
        return None
    made = directory / "handlers.o"
    source = Path(__file__).parent / "programs" / "handlers.bpf.c"
    options = ["-O2", "-target", "bpf", "-mcpu=v3", "-w"]
    subprocess.run(["clang", *options, "-c", "-o", made, source], check=True)
    return ObjectFile(made.read_bytes())
