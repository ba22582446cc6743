"""`kprobes run` on a script with the kernel's own objects; and reading where hits never rest."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kprobes import Process, attach, log, uprobe

pytestmark = pytest.mark.process
RUN = [sys.executable, "-m", "kprobes.cli.main", "run"]
TIMEOUT_S = 60
SCRIPT = """
from kprobes import Kprobe, Kretprobe, pr_info

def entered(p, regs):
    pr_info(f"entered {p.symbol_name}")
    return 0

def left(ri, regs):
    pr_info("left")

probes = [Kprobe(symbol_name="libc:getpgid", pre_handler=entered)]
returns = Kretprobe(symbol_name="libc:getpgid", handler=left)
place = returns.kp
"""
CALLS = [sys.executable, "-c", "import os\nfor _ in range(5): os.getpgid(0)"]
BUSY = [sys.executable, "-c", "import os\nprint(flush=True)\nwhile True: os.getpgid(0)"]
CALM = [sys.executable, "-c", "import os, time\nprint(flush=True)\nwhile True: os.getpgid(0); time.sleep(0.001)"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@contextmanager
def calling(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def run(*words: str, status: int = 0) -> str:
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == status, done.stderr
    return done.stderr


def test_what_registered_handlers_print_is_shown_and_counted(script: Path) -> None:
    shown = run(str(script), "--", *CALLS)
    assert shown.splitlines()[:-1] == ["entered libc:getpgid", "left"] * 5
    assert re.match(r"10 hits in [\d.]+ s at 2 places", shown.splitlines()[-1])
    rows = [line for line in run(str(script), "--format", "json", "-n", "3", "--", *CALLS).splitlines() if "{" in line]
    assert [json.loads(line)["message"] for line in rows] == ["entered libc:getpgid", "left", "entered libc:getpgid"]


def test_an_interrupt_unregisters_and_sums_up(script: Path) -> None:
    with calling(CALM) as busy:
        words = [*RUN, str(script), "-p", str(busy.pid)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
            assert command.stdout is not None
            assert command.stdout.readline() in ("entered libc:getpgid\n", "left\n")
            command.send_signal(signal.SIGINT)
            _, errors = command.communicate(timeout=TIMEOUT_S)
        assert command.returncode == 0
        assert "hits in " in errors
        assert busy.poll() is None


def test_a_script_of_both_kinds_and_options_of_the_other_kind_are_refused(script: Path) -> None:
    assert "--set doesn't go with Kprobe" in run(str(script), "--set", "a=1", "--", *CALLS, status=2)
    script.write_text(SCRIPT + "from kprobes import kprobe\n@kprobe('vfs_read')\ndef other():\n    pr_info('x')\n")
    assert "write two scripts" in run(str(script), "--", *CALLS, status=2)


@uprobe("libc.so.6:getpgid")
def called() -> None:
    log("called")


def test_reading_ends_when_its_time_is_over_though_hits_never_rest() -> None:
    with calling(BUSY) as busy, attach(called, to=Process(busy.pid)) as session:
        begin = time.monotonic()
        for _ in session.events(0.1):
            assert time.monotonic() - begin < TIMEOUT_S
        before = session.stats[0].hits
        while session.stats[0].hits < before + 5000:
            session.wait(0.01)
        session.detach()
        assert sum(1 for _ in session.events(0)) > 1000
