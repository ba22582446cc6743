"""How handlers and calls end in a process: asserts that fail, `finally`, and calls whose return is never seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]

pytestmark = pytest.mark.process

SCRIPT = """
from kprobes import Count, arg, emit, uretprobe

left = Count("left")

@uretprobe("PROGRAM:work")
def works():
    how = int(arg(1))
    assert how != 104, "not that one"
    try:
        ret = yield
        assert ret != 103 and ret != 106
        if ret == 107:
            return
        emit(ret)
    finally:
        left.add()
"""


@pytest.mark.parametrize("engine", [[], ["--engine", "uprobe"]], ids=["native", "uprobe"])
def test_failed_asserts_and_calls_without_return_are_told(
    build: Callable[..., Path], tmp_path: Path, engine: list[str]
) -> None:
    program = build("unmatched.c")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("PROGRAM", str(program) if engine else program.name))
    command = [*KPROBES, "run", str(script), "--strict", "--format", "json", *engine, "--", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [row["ret"] for row in rows if "event" in row] == [100, 101, 102, 105, 108, 109]
    assert {"map": "left", "value": 9} in rows
    failed = {row["assert"]: (row["message"], row["line"], row["failed"]) for row in rows if "assert" in row}
    assert failed == {"how != 104": ("not that one", 9, 1), "ret != 103 and ret != 106": ("", 12, 2)}
    (unmatched,) = [row["unmatched"] for row in rows if "unmatched" in row]
    assert unmatched == 3
    assert f"assert failed 2 times: {script}:12: ret != 103 and ret != 106\n" in done.stderr
    assert f"assert failed once: {script}:9: how != 104 (not that one)\n" in done.stderr
    assert "(3)\n" in done.stderr


SETTINGS = """
from kprobes import Setting, arg, emit, uprobe

least = Setting("least", 105, "work less than this is left out")
name = Setting("name", "work")

@uprobe("PROGRAM:work")
def works():
    how = int(arg(1))
    if how >= least:
        emit(how, name=name)
"""


def test_settings_of_a_script_are_shown_and_set(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("unmatched.c")
    script = tmp_path / "script.py"
    script.write_text(SETTINGS.replace("PROGRAM", program.name))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*KPROBES, "run", str(script), "--format", "json", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def seen(*words: str) -> list[tuple[int, str]]:
        lines = run(*words, "--", str(program)).stderr.splitlines()
        return [(row["how"], row["name"]) for row in map(json.loads, (one for one in lines if one.startswith("{")))]

    assert seen() == [(how, "work") for how in range(105, 110)]
    assert seen("--set", "least=0x6c", "--set", "name=job") == [(108, "job"), (109, "job")]
    assert seen("--set", "least=109") == [(109, "work")]
    assert "least  int, 105 unless set  work less than this is left out\n" in run("--settings").stdout
    refused = run("--set", "most=1")
    assert refused.returncode != 0
    assert "least, name" in refused.stderr
