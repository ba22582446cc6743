"""What a command loads on its way to the first event: each module costs every start a tenth of a millisecond or more.

A new module on this way needs a reason, and a line here; most can wait until an option or a probe asks for them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# A plan that is on the disk already.
FOUND = "kprobes.cli.main kprobes.cli.trace kprobes.engines.kernel.engine kprobes.planner.cache kprobes.render.table"
# One that is compiled, for a function of a program.
MADE = f"{FOUND} kprobes.planner.build kprobes.planner.files kprobes.symbols.debugfile kprobes.symbols.dwarf.types"
OURS = {
    "": "errors frozen naming version",
    "cli": "definitions follow main options parser places rows trace workload",
    "engines": "atomic targets",
    "engines.kernel": """attach attached btf cache counts engine facts features files holds limits links maps program
    refusals ring syscall uprobes""",
    "events": "decode record value",
    "model": "caution features layout plan probe store within",
    "planner": "cache",
    "render": "escape table terminal",
    "session": "attaching counts selection session stream",
    "symbols": "cache",
}
HEAVY = {
    "argparse", "asyncio", "dataclasses", "hashlib", "importlib.resources", "inspect", "json", "llvmlite.binding",
    "llvmlite.ir", "pathlib", "pyarrow", "shutil", "subprocess", "tempfile", "threading", "typing",
}  # fmt: skip
# What most of Python's own modules stand on, and a found plan and `--version` do without.
USUAL = {"collections", "contextlib", "enum", "functools", "re"}


def loaded(modules: str) -> set[str]:
    """Return what is loaded where *modules* are and nothing was."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; before = set(sys.modules); import {', '.join(modules.split())}"
    command = [sys.executable, "-S", "-c", f"{code}; print(*set(sys.modules) - before)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_plan_that_is_found_needs_these_modules_alone():
    found = loaded(FOUND)
    known = {
        f"kprobes.{package}.{name}".replace("..", ".") for package, names in OURS.items() for name in names.split()
    }
    packages = {f"kprobes.{package}".rstrip(".") for package in OURS}
    assert sorted(name for name in found - known - packages if name.startswith("kprobes")) == []
    assert sorted(found & (HEAVY | USUAL)) == []


def test_a_plan_that_is_made_needs_nothing_heavy():
    assert sorted(loaded(MADE) & HEAVY) == []


def test_the_command_that_is_installed_loads_nothing_before_it_knows_what_to_do():
    code = (ROOT / "scripts" / "kprobes").read_text()
    script = f"import sys; sys.path[:0] = {sys.path!r}; sys.argv = ['kprobes', '--version']\ntry:\n exec({code!r})\n"
    tail = "except SystemExit:\n print(*sys.modules)"
    command = [sys.executable, "-S", "-c", script + tail]
    said, names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said.startswith("kprobes ")
    assert not (HEAVY | USUAL) & set(names.split())
