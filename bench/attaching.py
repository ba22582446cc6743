"""Attaching to many functions, beside bpftrace.

In a guest: the time from "attach this plan" to all in place, which for bpftrace is from its word "Attaching" to the
start of the command that it runs then. Both compile before that. On this machine: from the command line to all in
place, for the functions of a program, with the kernel's uprobes.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.guests import BPFTRACE, Guest
from bench.lab import Lab, has, in_turns
from kprobes.model.probe import Probe
from kprobes.planner.cache import cached_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KERNELS = ("6.12", "6.1")
GLOBS = {"6.12": ("vfs_*", "acpi_*"), "6.1": ("vfs_*",)}  # 6.1 has no kprobe.multi: a kprobe each
ROUNDS = 4
FUNCTIONS = 200  # bpftrace takes up to a sixth of a second to take each of them away again


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the times in guests, then those on this machine."""
    if not has("bpftrace"):
        lab.say("no bpftrace: nothing to compare with")
    yield from _on_this_machine(lab)
    for kernel in KERNELS:
        with Guest(kernel) as guest:
            programs = [lab.build(name, "-static") for name in ("stamps", "go")]
            guest.run(["true"], copy=[*map(str, programs), *([BPFTRACE] if has("bpftrace") else [])])
            for glob in GLOBS[kernel]:
                yield _in_guest(guest, glob)


def _in_guest(guest: Guest, glob: str) -> Figure:
    plan = cached_plan([Probe("kprobe", (glob,))], guest.machine.facts())
    sites = len(plan.sites)

    def ours() -> float:
        begin = time.perf_counter()
        attached = guest.machine.attach(plan)
        took = time.perf_counter() - begin
        attached.close()
        return took

    def theirs() -> float:
        script = f"kprobe:{glob} {{ @[func] = count(); }}"
        told = guest.run(["/root/stamps", "/root/bpftrace", "-e", script, "-c", "/root/go"])
        stamps = {line.split()[1]: float(line.split()[0]) for line in told.splitlines() if len(line.split()) > 1}
        return stamps["go"] - stamps["Attaching"]

    ways = {"ours": ours, **({"bpftrace": theirs} if has("bpftrace") else {})}
    times = in_turns(ROUNDS, ways)
    reference = times["bpftrace"].least if "bpftrace" in times else None
    return Figure(f"attach {sites} x {glob}, {guest.kernel}", times["ours"].least, reference, "s", "bpftrace", most=1.0)


def _on_this_machine(lab: Lab) -> Iterator[Figure]:
    program = _program(lab)
    place = f"{program}:function_*"
    environment = {"XDG_CACHE_HOME": str(lab.directory / "attach-cache")}
    ours = [lab.command, "count", "--engine", "uprobe", place, "--", str(program)]

    def fresh() -> float:
        for plan in (lab.directory / "attach-cache" / "kprobes").glob("plan-*"):
            plan.unlink()
        return lab.first_output(ours, sign=b"go", environment=environment)

    fresh()
    ways = {"fresh": fresh, "cached": lambda: lab.first_output(ours, sign=b"go", environment=environment)}
    if has("bpftrace") and not os.geteuid():
        script = f"uprobe:{program}:function_* {{ @[func] = count(); }}"
        words = ["env", "BPFTRACE_MAX_PROBES=5000", "bpftrace", "-e", script, "-c", str(program)]
        ways["bpftrace"] = lambda: lab.first_output(words, sign=b"go")
    times = in_turns(ROUNDS, ways)
    reference = times["bpftrace"].least if "bpftrace" in times else None
    name = f"command to {FUNCTIONS:,} functions of a program"
    yield Figure(f"{name}, plan cached", times["cached"].least, reference, "s", "bpftrace", most=1.0)
    yield Figure(f"{name}, plan made", times["fresh"].least, reference, "s", "bpftrace", most=1.0)


def _program(lab: Lab) -> Path:
    """Return a program with many functions that says "go"."""
    source = lab.directory / "many.c"
    target = lab.directory / "many"
    bodies = "".join(
        f'__attribute__((noinline)) int function_{number}(int x) {{ __asm__ volatile(""); return x + {number}; }}\n'
        for number in range(FUNCTIONS)
    )
    table = ", ".join(f"function_{number}" for number in range(FUNCTIONS))
    main = f'int (*const table[])(int) = {{ {table} }};\nint main(void) {{ puts("go"); return 0; }}\n'
    source.write_text(f"#include <stdio.h>\n{bodies}{main}")
    subprocess.run(["gcc", "-O1", "-o", str(target), str(source)], check=True, capture_output=True)
    return target
