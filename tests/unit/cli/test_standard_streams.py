"""Commands whose standard streams are closed, full, or read by nobody."""

from __future__ import annotations

import subprocess
import sys

import pytest

LINES = "p vfs_read\n" * 20_000


def run_shell(redirection: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m kprobes.cli.main check --kernel 6.1 {redirection}"
    return subprocess.run(["bash", "-c", command], input=LINES, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_like_the_null_device(closed: str) -> None:
    done = run_shell(closed)
    # the second line of the same probe is refused
    assert done.returncode == (0 if "<&-" in closed else 1)
    assert done.stderr == ""
    assert ("refused" in done.stdout) == (closed == "2>&-")


def test_a_full_device_is_told_in_one_line() -> None:
    done = run_shell("> /dev/full")
    assert (done.returncode, done.stderr) == (1, "error: can't write: No space left on device\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    done = run_shell("| head -n 1; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout == "    1  ok       p:kprobes/p_vfs_read_0 vfs_read\n"
