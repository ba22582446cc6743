"""Mistakes and warnings as people see them: every handler of a script at once, on its own lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from kprobes import Process, attach, pid, uprobe
from kprobes.errors import HandlerWarning

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]

MISTAKEN = """from kprobes import Count, arg, comm, emit, uprobe

calls = Count("calls")


def helper(x):
    return x.nothing() + comm()


@uprobe("libc:malloc")
def one():
    emit(arg(1) / 2, nowhere)
    if arg(1) > 1:
        calls.increment()


@uprobe("libc:free")
def two():
    emit(helper(5))
"""

ODD = """from kprobes import Count, arg, uprobe

calls = Count("calls")


@uprobe("libc:malloc")
def one():
    unused = arg(1)
    if arg(1) < 0:
        calls.add()
"""


def run(script: Path, *words: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    around = {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}
    command = [*KPROBES, "run", str(script), *words, "--", "true"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=around)


def test_the_mistakes_of_all_handlers_are_shown_in_one_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(MISTAKEN)
    done = run(script)
    assert done.returncode == 1
    places = [line.strip() for line in done.stderr.splitlines() if line.lstrip().startswith("-->")]
    assert places == [f"--> {script}:{place}" for place in ("12:10", "12:22", "14:15", "7:14")]
    assert f"in helper(), called at {script}:19: emit(helper(5))" in done.stderr
    assert "Traceback" not in done.stderr


def test_as_json_each_mistake_is_an_object(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(MISTAKEN)
    done = run(script, "--format=json")
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(row["severity"], row["line"], row["column"]) for row in rows] == [
        ("error", 12, 10),
        ("error", 12, 22),
        ("error", 14, 15),
        ("error", 7, 14),
    ]
    assert all(row["hint"] for row in rows)
    assert rows[3]["calls"] == [{"function": "helper", "file": str(script), "line": 19, "column": 10}]


def test_warnings_are_shown_at_each_start_also_from_a_cached_plan_and_change_no_status(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ODD)
    first, second = (run(script, "--strict", cache=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0
    for done in (first, second):
        assert done.stderr.count("warning: ") == 2
        assert f"warning: unused is assigned and never used\n --> {script}:8:5\n" in done.stderr
        assert f"warning: this comparison is always false\n --> {script}:9:8\n" in done.stderr
    row = json.loads(run(script, "--format", "json").stderr.splitlines()[0])
    assert (row["severity"], row["line"], row["column"]) == ("warning", 8, 5)


@uprobe("libc:malloc")
def odd():
    unused = pid()  # noqa: F841 - what the test is about


def test_in_python_they_are_warnings_of_python(tmp_path: Path) -> None:
    with pytest.warns(HandlerWarning, match="unused is assigned and never used") as told:
        attach(odd, to=Process.spawn(["true"])).close()
    assert [one.filename for one in told if one.category is HandlerWarning] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with attach(odd, to=Process.spawn(["true"]), warnings=False) as session:
            assert [one.what for one in session.warnings] == ["unused is assigned and never used"]
        with pytest.raises(HandlerWarning):
            attach(odd, to=Process.spawn(["true"]))
