"""From the command to the first event: a uprobe on a small program of this machine.

The way is the same for a probe in the kernel, which the development machine's own kernel can't have. References: what
the kernel itself takes (tracefs, written by a C program), bpftrace, and the interpreter alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import Lab, Times, has, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROUNDS = 15
EMIT = """
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple("bpfel").create_target_machine(opt=2)
module = llvm.parse_assembly('define i64 @f(ptr %c) { %v = load i64, ptr %c ret i64 %v }')
print(len(machine.emit_object(module)))
"""


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the times to the first event: plan in the cache, plan to be compiled."""
    program = lab.build("work")
    with subprocess.Popen([str(program)]) as process:
        try:
            yield from _figures(_measure(lab, program, process.pid))
        finally:
            process.kill()


def _measure(lab: Lab, program: Path, pid: int) -> dict[str, Times]:
    cache = lab.directory / "start-cache"
    ours = [lab.command, "trace", "-p", str(pid), "--engine", "uprobe", "work", "-n", "1"]
    environment = {"XDG_CACHE_HOME": str(cache)}

    def cached() -> float:
        return lab.first_output(ours, sign=b"work ", environment=environment)

    def fresh() -> float:
        for plan in (cache / "kprobes").glob("plan-*"):
            plan.unlink()
        return lab.first_output(ours, sign=b"work ", environment=environment)

    fresh()  # writes the .pyc files and asks the kernel for its features
    script = f'uprobe:{program}:work {{ printf("hit %d\\n", arg0); exit(); }}'
    ways: dict[str, Callable[[], float]] = {
        "fresh": fresh,
        "cached": cached,
        "python": lambda: lab.first_output([sys.executable, "-c", "print(1)"]),
        "emit": lambda: lab.first_output([sys.executable, "-c", EMIT]),
    }
    if has("bpftrace") and not os.geteuid():
        ways["bpftrace"] = lambda: lab.first_output(["bpftrace", "-p", str(pid), "-e", script], sign=b"hit ")
    if os.path.exists("/sys/kernel/tracing/uprobe_events"):  # noqa: PTH110
        words = [str(lab.build("tracefs_uprobe")), str(program), hex(_offset(program))]
        ways["tracefs"] = lambda: lab.first_output(words)
    return in_turns(ROUNDS, ways)


def _offset(program: Path) -> int:
    """Return the file offset of work() in *program*."""
    from kprobes.symbols.file import resolve_file
    from kprobes.symbols.objects import MachineObjects

    (found,) = resolve_file(f"{program}:work", MachineObjects(str(program))).found
    return found.site.address


def _figures(times: dict[str, Times]) -> Iterator[Figure]:
    def least(name: str) -> float | None:
        return times[name].least if name in times else None

    def middle(name: str) -> float | None:
        return times[name].middle if name in times else None

    cached, fresh = "start to first event, plan cached", "start to first event, plan compiled"
    yield Figure(cached, least("cached"), least("bpftrace"), against="bpftrace", most=0.07, absolute=True)
    yield Figure(fresh, least("fresh"), least("bpftrace"), against="bpftrace", most=0.15, absolute=True)
    yield Figure("  the same, median", middle("cached"), middle("bpftrace"), against="bpftrace")
    yield Figure("  the same, median", middle("fresh"), middle("bpftrace"), against="bpftrace")
    yield Figure("  of it: tracefs alone, in C", least("tracefs"))
    yield Figure("  of it: python -c 'print(1)'", least("python"))
    yield Figure("  of it: python, llvmlite and a BPF object", least("emit"))
