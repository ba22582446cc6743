"""Fault injection in real programs: calls fail as a handler wants, and the programs go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[3]
BIG = "select length(randomblob(3000000));"
PYTHON = """
import os
for _ in range(4):
    try:
        print(len("x" * 2_000_000))
    except MemoryError:
        print("no memory")
read, write = os.pipe()
os.write(write, b"abcdef")
print(os.read(read, 3), os.getppid() > 0)
"""


def run_script(script: Path, *command: str, given: str = "") -> tuple[subprocess.CompletedProcess[str], list[dict]]:
    told = script.with_name("told.json") if script.parent != ROOT / "examples" else Path("/dev/null")
    words = [sys.executable, "-m", "kprobes.cli.main", "run", script, "--format", "json", "-o", told, "--", *command]
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, timeout=60)
    rows = [json.loads(line) for line in told.read_text().splitlines()] if told.is_file() else []
    return done, rows


def write(tmp_path: Path, text: str) -> Path:
    script = tmp_path / "script.py"
    script.write_text(text)
    return script


def test_the_first_large_requests_of_sqlite_fail_and_it_goes_on() -> None:
    done, _ = run_script(ROOT / "examples" / "inject.py", "sqlite3", ":memory:", given=f"{BIG}\n" * 5 + "select 6*7;")
    assert done.stdout.split() == ["3000000", "3000000", "42"]
    assert done.stderr.count("out of memory") == 3


def test_python_turns_a_failed_malloc_into_memory_errors(tmp_path: Path) -> None:
    script = write(tmp_path, (ROOT / "examples" / "inject.py").read_text())
    done, rows = run_script(script, sys.executable, "-c", PYTHON)
    assert done.stdout.split("\n")[:4] == ["no memory"] * 3 + ["2000000"]
    assert done.returncode == 0
    assert [row["bytes"] > 2_000_000 for row in rows if "bytes" in row] == [True] * 3


def test_a_changed_argument_makes_a_read_short(tmp_path: Path) -> None:
    text = (
        "from kprobes import arg, regs, uprobe\n"
        "@uprobe('libc:read', unsafe=True)\n"
        "def short_read():\n"
        "    if arg(3) == 3:\n"
        "        regs.dx = 1\n"
    )
    done, _ = run_script(write(tmp_path, text), sys.executable, "-c", PYTHON)
    assert done.stdout.splitlines()[-1] == "b'a' True"


def test_a_forced_result_is_what_the_program_sees(tmp_path: Path) -> None:
    text = (
        "from kprobes import return_from_function, uprobe\n"
        "@uprobe('libc:getppid', unsafe=True)\n"
        "def no_parent():\n"
        "    return_from_function(0)\n"
    )
    done, _ = run_script(write(tmp_path, text), sys.executable, "-c", PYTHON)
    assert done.stdout.splitlines()[-1] == "b'abc' False"
