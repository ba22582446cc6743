"""The compile step: handlers of 10, 50 and 200 lines from their Python text to programs, after all imports, which the
library of LLVM counts among.

Each run is a process of its own, since a command compiles once: LLVM's own preparations count. The reference is LLVM
alone, making the object file of a function of one line.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import ROOT, Lab, in_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 5
COMPILE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import kprobes.engines.kernel.engine, kprobes.planner.build, kprobes.planner.files, kprobes.compiler.back.llvm
import ctypes, kprobes.compiler.back.library
ctypes.CDLL(kprobes.compiler.back.library.find_library())
import kprobes.symbols.dwarf.types, kprobes.symbols.debugfile, kprobes.symbols.variables
from kprobes.model.within import Within
from bench.handlers import many_lines, ten_lines
facts = kprobes.engines.kernel.engine.KernelEngine().facts()
facts.features
lines = int(sys.argv[3])
probe = ten_lines(sys.argv[2]) if lines == 10 else many_lines(sys.argv[2], lines)
begin = time.perf_counter()
plan = kprobes.planner.build.plan_probes([probe], facts, within=Within(program=sys.argv[2]))
assert len(plan.programs) == 1 + (lines == 10), plan
print(time.perf_counter() - begin)
"""
NATIVE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import kprobes.planner.process, kprobes.planner.files, kprobes.compiler.back.llvm, kprobes.compiler.back.native
import ctypes, kprobes.compiler.back.library
ctypes.CDLL(kprobes.compiler.back.library.find_library())
import kprobes.symbols.dwarf.types, kprobes.symbols.debugfile, kprobes.symbols.variables
import kprobes.compiler.front.compile, kprobes.arch.x86_64.clobbers
from kprobes.model.within import Within
from bench.handlers import many_lines, ten_lines
lines = int(sys.argv[3])
probe = ten_lines(sys.argv[2]) if lines == 10 else many_lines(sys.argv[2], lines)
begin = time.perf_counter()
plan = kprobes.planner.process.plan_process([probe], Within(program=sys.argv[2]))
assert len(plan.natives) == 1 + (lines == 10), plan
print(time.perf_counter() - begin)
"""
IMPORT = """
import time
begin = time.perf_counter()
import kprobes
print(time.perf_counter() - begin)
"""
IMPORT_ALL = """
import time
begin = time.perf_counter()
from kprobes import *
print(time.perf_counter() - begin)
"""
MOST_S = {10: 0.06, 50: 0.12, 200: 0.4}
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
    """Yield the times of the compile step, and of importing."""
    program = lab.build("work")

    def compiled(lines: int, script: str = COMPILE) -> float:
        return _told(lab, [script, str(ROOT), str(program), str(lines)])

    compiled(10)  # writes the .pyc files
    compiled(10, NATIVE)
    ways = {str(lines): partial(compiled, lines) for lines in MOST_S}
    ways |= {f"native {lines}": partial(compiled, lines, NATIVE) for lines in MOST_S}
    ways |= {"emit": lambda: _told(lab, [EMIT]), "import": lambda: _told(lab, [IMPORT])}
    times = in_turns(ROUNDS, ways | {"import all": lambda: _told(lab, [IMPORT_ALL])})
    reference, against = times["emit"].least, "LLVM alone, one line"
    for lines, most in MOST_S.items():
        name = f"compile a handler of {lines} lines"
        yield Figure(name, times[str(lines)].least, reference, against=against, most=most, absolute=True)
        yield Figure("  the same, median", times[str(lines)].middle, times["emit"].middle, against=against)
        yield Figure("  the same, to native code", times[f"native {lines}"].least, reference, against=against)
    yield Figure("import kprobes", times["import"].least, most=0.15, absolute=True)
    yield Figure("  all its names", times["import all"].least, most=0.15, absolute=True)


def _told(lab: Lab, words: list[str]) -> float:
    """Return the number that a Python program prints."""
    done = subprocess.run(
        [sys.executable, "-c", *words], env=lab.environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-800:])
    return float(done.stdout)
