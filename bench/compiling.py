"""The compile step: a handler of ten lines from its Python text to BPF programs, after all imports.

Each run is a process of its own, since a command compiles once: LLVM's own preparations count. The reference is LLVM
alone, making the object file of a function of one line.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import ROOT, Lab, in_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 9
COMPILE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import kprobes.engines.kernel.engine, kprobes.planner.build, kprobes.planner.files, kprobes.compiler.back.llvm
from kprobes.model.within import Within
from bench.handlers import ten_lines
facts = kprobes.engines.kernel.engine.KernelEngine().facts()
facts.features
begin = time.perf_counter()
plan = kprobes.planner.build.plan_probes([ten_lines(sys.argv[2])], facts, within=Within(program=sys.argv[2]))
assert len(plan.programs) == 2, plan
print(time.perf_counter() - begin)
"""
EMIT = """
import time
import llvmlite.binding as llvm
begin = time.perf_counter()
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple("bpfel").create_target_machine(opt=2)
module = llvm.parse_assembly('define i64 @f(ptr %c) { %v = load i64, ptr %c ret i64 %v }')
machine.emit_object(module)
print(time.perf_counter() - begin)
"""


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the time of the compile step."""
    program = lab.build("work")

    def compiled() -> float:
        return _told(lab, [COMPILE, str(ROOT), str(program)])

    compiled()  # writes the .pyc files
    times = in_turns(ROUNDS, {"ours": compiled, "emit": lambda: _told(lab, [EMIT])})
    reference = times["emit"].least
    name = "compile a handler of ten lines"
    yield Figure(name, times["ours"].least, reference, against="LLVM alone, one line", most=0.06, absolute=True)
    yield Figure("  the same, median", times["ours"].middle, times["emit"].middle, against="LLVM alone, one line")


def _told(lab: Lab, words: list[str]) -> float:
    """Return the number that a Python program prints."""
    done = subprocess.run(
        [sys.executable, "-c", *words], env=lab.environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-800:])
    return float(done.stdout)
