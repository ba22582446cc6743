"""`kprobes explain` in a process: the steps, and one hit in earnest."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process


def explain(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kprobes.cli.main", "explain", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_steps_end_with_the_bytes_of_the_patch_and_its_detour() -> None:
    done = explain("--format=json", "libc:getppid", "--", "true")
    row = json.loads(done.stderr)
    steps = {step["title"]: step for step in row["steps"]}
    assert row["way"] == "jump"
    assert steps["boundary"]["outcome"] == "yes"
    before, after = re.findall(r"(?:[0-9a-f]{2} ?){5}", steps["patch"]["lines"][0].partition("  ")[2])
    assert before.split()[0] == "b8"  # mov eax, the number of the system call
    assert after.split()[0] == "e9"
    assert "saves what it must" in steps["detour"]["lines"][0]
    assert steps["detour"]["lines"][-1].split()[-2] == "jmp"


def test_a_place_inside_of_an_instruction_is_refused_with_the_kernels_errno() -> None:
    row = json.loads(explain("--format=json", "libc:getppid+1", "--", "true").stderr)
    assert (row["way"], row["error"]) == ("", "EILSEQ")
    assert row["steps"][-1]["outcome"] == "refused"


def test_one_hit_in_earnest_shows_what_the_instruction_changed() -> None:
    done = explain("--step", "libc:getppid", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3  # the program's own
    shown = dict(re.findall(r"^  (\w+) +(0x.*)$", done.stderr, re.MULTILINE))
    ip, _, then = shown["ip"].partition("->")
    assert int(then, 16) - int(ip, 16) == 5
    assert shown["ax"].split()[-1] == "0x6e"
    assert "->" not in shown["bx"]


def test_a_step_that_is_never_taken_is_told() -> None:
    done = explain("--step", "libc:setregid", "--", "true")
    assert done.returncode == 1
    assert "libc:setregid was not hit" in done.stderr


def test_a_step_needs_a_process() -> None:
    done = explain("--step", "--vm", "vfs_read")
    assert done.returncode == 2
    assert "--step carries a probe out in a process" in done.stderr


def test_one_hit_as_json_has_the_registers_before_and_behind() -> None:
    first, hit = map(
        json.loads, explain("--format=json", "--step", "libc:getppid", "--", "sh", "-c", ":").stderr.splitlines()
    )
    assert first["way"] == "jump"
    assert hit["after"]["ip"] - hit["before"]["ip"] == 5
    assert hit["after"]["ax"] == 0x6E


def test_a_command_that_would_not_run_is_refused() -> None:
    assert "runs no command" in explain("--vm", "vfs_read", "--", "true").stderr
