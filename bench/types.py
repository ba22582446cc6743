"""Types: what it takes to find a prototype and the field that a handler names, in BTF and in debugging information.

Cold is a process of its own, after imports, nothing kept on disk; kept is the same with the index of before; warm is
the middle of many lookups of different functions in one process. The program has more than 10 MB of debugging
information: 24 units that share the types of one large header, as C programs do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUNDS = 7
UNITS, STRUCTS, FUNCTIONS = 24, 3200, 40
BTF = "/sys/kernel/btf/vmlinux"
DWARF = """
import subprocess, sys, time
import zlib
from kprobes.symbols.dwarf.types import ObjectTypes
import kprobes.symbols.dwarf.declare
path = sys.argv[1]
listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
functions = [int(line.split()[0], 16) for line in listed.splitlines() if " work_" in line]
def look(types, address):
    begin = time.perf_counter()
    function = types.function_at(address)
    member = types.member(function.parameters[0].type.target, "next")
    assert types.member(member.type.target, "flags") is not None
    return time.perf_counter() - begin
begin = time.perf_counter()
types = ObjectTypes(path)
look(types, functions[0])
print(time.perf_counter() - begin)
print(sorted(look(types, address) for address in functions)[len(functions) // 2])
"""
KERNEL = """
import sys, time
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.symbols.btf_types import KernelTypes
facts = KernelEngine().facts()
facts.features
def look(types, name):
    begin = time.perf_counter()
    function = types.function(name)
    member = types.member(function.parameters[0].type.target, "f_path")
    assert types.member(member.type, "dentry") is not None
    return time.perf_counter() - begin
begin = time.perf_counter()
types = KernelTypes.load(facts)
look(types, "vfs_read")
print(time.perf_counter() - begin)
names = ("vfs_write", "vfs_fsync", "vfs_llseek", "kernel_read", "kernel_write", "vfs_iter_read", "fput")
found = sorted(look(types, name) for name in names if types.function(name) is not None)
print(found[len(found) // 2])
"""


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the times of lookups."""
    program = _large_program(lab)
    size = _size_of_info(program)
    cold, warm = zip(*(_told(lab, DWARF, str(program)) for _ in range(ROUNDS)), strict=True)
    yield Figure(f"type lookup, {size >> 20} MB of DWARF, cold", min(cold))
    yield Figure("  the same, warm", median(warm))
    if not os.path.exists(BTF):  # noqa: PTH110
        yield Figure("type lookup, the kernel's BTF", None, note="this kernel has none")
        return
    found = []
    for number in range(ROUNDS):
        cache = lab.directory / f"types-{number}"
        cache.mkdir()
        found.append([*_told(lab, KERNEL, cache=str(cache)), *_told(lab, KERNEL, cache=str(cache))])
    cold, warm, kept, _ = zip(*found, strict=True)
    yield Figure("type lookup, the kernel's BTF, cold", min(cold))
    yield Figure("  the same, with the index kept on disk", min(kept))
    yield Figure("  the same, warm", median(warm))


def _told(lab: Lab, script: str, *words: str, cache: str = "") -> list[float]:
    """Return the numbers that a Python program prints, one a line."""
    environment = {**lab.environment, **({"XDG_CACHE_HOME": cache} if cache else {})}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-800:])
    return [float(line) for line in done.stdout.split()]


def _large_program(lab: Lab) -> Path:
    header = lab.directory / "large.h"
    structs = [f"struct s{n};" for n in range(STRUCTS)]
    structs += [
        f"struct s{n} {{ int flags : {n % 30 + 1}; long id; const char *name; struct s{(n * 7 + 1) % STRUCTS} *next;"
        f" char key[{n % 60 + 1}]; union {{ int a; float b; }}; int (*visit)(struct s{n} *, unsigned long); }};"
        for n in range(STRUCTS)
    ]
    header.write_text("\n".join(structs))
    objects = []
    for unit in range(UNITS):
        functions = [
            f"int work_{unit}_{n}(struct s{(unit * FUNCTIONS + n) % STRUCTS} *one, int count, const char *label)"
            f" {{ return one->flags + count + label[0]; }}"
            for n in range(FUNCTIONS)
        ]
        source = lab.directory / f"large{unit}.c"
        source.write_text("\n".join(['#include "large.h"', *functions]))
        objects.append(str(source.with_suffix(".o")))
        words = ["gcc", "-g", "-O0", "-fno-eliminate-unused-debug-types", "-c", "-o", objects[-1], str(source)]
        subprocess.run(words, check=True)
    (lab.directory / "large.c").write_text("int main(void) { return 0; }\n")
    program = lab.directory / "large"
    subprocess.run(["gcc", "-g", "-o", str(program), str(lab.directory / "large.c"), *objects], check=True)
    return program


def _size_of_info(program: Path) -> int:
    from kprobes.symbols.elf import ElfFile

    with ElfFile(str(program)) as elf:
        section = elf.section(".debug_info")
        assert section is not None
        return section.size
