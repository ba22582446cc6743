"""A command that is probed by the kernel's uprobes is held right after its exec: nothing of ours is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
SOURCE = r"""
#include <stdlib.h>
int main(int count, char **words)
{
    for (int i = 0; i < atoi(words[1]); i++) {
        void *volatile memory = malloc(40);
        free(memory);
    }
    return count + 1;
}
"""


def kprobes(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*KPROBES, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("held") / "allocates"
    words = ["gcc", "-O1", "-fno-builtin", "-x", "c", "-o", str(target), "-"]
    subprocess.run(words, input=SOURCE, text=True, check=True)
    return str(target)


@pytest.mark.parametrize("calls", [0, 7, 1000])
def test_only_calls_of_the_program_itself_are_counted(program: str, calls: int) -> None:
    words = ("libc.so.6:malloc", "libc.so.6:free", "--", program, str(calls))
    done = kprobes("count", "--engine", "uprobe", "--format", "json", *words)
    assert done.returncode == 3, done.stderr
    rows = [json.loads(line) for line in done.stderr.splitlines()[:2]]
    assert {row["probe"]: row["hits"] for row in rows} == {"libc.so.6:malloc": calls, "libc.so.6:free": calls}


@pytest.mark.parametrize("command", ["/nonexistent/program", "/etc/passwd"])
def test_a_command_that_cannot_be_run_is_told(command: str) -> None:
    done = kprobes("count", "--engine", "uprobe", "libc.so.6:malloc", "--", command)
    assert done.returncode == 1
    assert f"error: can't run '{command}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_whose_probes_are_refused_never_begins(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    done = kprobes("count", "--engine", "uprobe", "libc.so.6:no_such_function", "--", "touch", str(touched))
    assert done.returncode == 1
    assert not touched.exists()
    assert str(touched) not in subprocess.run(["ps", "ax"], capture_output=True, text=True, check=True).stdout
