"""The examples that look into a process, beside programs whose traces are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
EXAMPLES = Path(__file__).parents[3] / "examples"


def run_example(name: str, *command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "kprobes.cli.main", "run", str(EXAMPLES / f"{name}.py"), "--", *command]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)


def test_mallocstacks_shows_who_asks_for_memory() -> None:
    done = run_example("mallocstacks", "sqlite3", ":memory:", "select length(randomblob(3000000));")
    assert "3000000" in done.stdout
    stacks = re.findall(r"((?:^    .+\n)+)  (\d+) bytes$", done.stdout + done.stderr, re.MULTILINE)
    assert any(int(size) >= 3_000_000 and "malloc" in frames for frames, size in stacks)


def test_gethostlatency_shows_the_host_and_the_time() -> None:
    done = run_example("gethostlatency", "getent", "ahosts", "localhost")
    assert re.search(r"^ *\d+ getent +localhost +0 +\d+$", done.stderr, re.MULTILINE), done.stderr
