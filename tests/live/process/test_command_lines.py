"""What people type about processes: `kprobes COMMAND -p PID`, `kprobes COMMAND ... -- CMD`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
BUSY = "import json, sys, time\nprint(flush=True)\nwhile True: json.dumps([1] * 500); time.sleep(0.01)"


def kprobes(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*KPROBES, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def busy() -> Iterator[int]:
    """Return a process that allocates memory all the time."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)


def test_a_function_of_a_library_is_traced_by_its_bare_name(busy: int) -> None:
    done = kprobes("trace", "--format", "json", "-p", str(busy), "malloc", "-n", "3")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3
    assert {row["pid"] for row in rows} == {busy}
    assert "nothing missed" in done.stderr


def test_a_misspelt_function_is_told_with_what_comes_near(busy: int) -> None:
    done = kprobes("trace", "-p", str(busy), "mallocc")
    assert done.returncode == 1
    assert "and its libraries" in done.stderr
    assert "did you mean malloc" in done.stderr


def test_a_command_whose_probes_cannot_be_had_does_not_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from kprobes import emit, uprobe\n\n@uprobe('libc:malloc')\ndef m(size):\n    emit(size=size)\n")
    for words in (("count", "no_such_function"), ("run", str(script))):
        done = kprobes(*words, "--", "touch", str(tmp_path / "made"))
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert not (tmp_path / "made").exists()


def test_the_status_of_the_command_is_ours() -> None:
    assert kprobes("count", "malloc", "--", "sh", "-c", "exit 3").returncode == 3


def test_a_program_that_becomes_another_is_told(tmp_path: Path) -> None:
    script = tmp_path / "front"
    script.write_text("#!/bin/sh\nexec sleep 2\n")
    script.chmod(0o755)
    done = kprobes("count", "libc:nanosleep", "libc:clock_nanosleep", "--", str(script))
    assert "became another program by exec" in done.stderr
    assert "sleep: probes stay behind" in done.stderr


def test_events_carry_the_time_of_day_and_that_of_now(busy: int) -> None:
    before = datetime.now(UTC)
    done = kprobes("trace", "--format", "json", "-p", str(busy), "malloc", "-n", "2")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    shown = [datetime.fromisoformat(row["time"][:26] + "+00:00") for row in rows]
    assert before <= shown[0] <= shown[1] <= datetime.now(UTC)
    apart = (shown[1] - shown[0]).total_seconds()
    assert abs(apart - (rows[1]["time_ns"] - rows[0]["time_ns"]) / 1e9) < 0.01


@pytest.mark.parametrize(
    ("time", "pattern"),
    [
        ("wall", r"\d\d:\d\d:\d\d\.\d{6}$"),
        ("boot", r"[1-9]\d*\.\d{6}$"),
        ("delta", r"0\.\d{6}$"),
        ("start", r"0\.000000$"),
    ],
)
def test_the_time_of_a_line_is_shown_as_asked_for(time: str, pattern: str, busy: int) -> None:
    done = kprobes("trace", "--time", time, "-p", str(busy), "malloc", "-n", "1")
    assert re.match(pattern, done.stdout.splitlines()[1].split()[0]), done.stdout


def test_ids_of_a_process_that_is_in_no_container_are_the_same_in_all_namespaces(busy: int) -> None:
    done = kprobes(
        "trace", "--format", "json", "-p", str(busy), "malloc", "-n", "1", "--print", "ns_pid, host_pid, ns_tid - tid"
    )
    assert json.loads(done.stdout)["args"] == {"ns_pid": busy, "host_pid": busy, "ns_tid - tid": 0}
