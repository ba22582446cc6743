"""Where the command writes: what is there and not ours stays, and a full disk is told as one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
SCRIPT = "from kprobes import log, uprobe\n@uprobe('libc.so.6:getpgid')\ndef called():\n    log('called')\n"
DEFINITION = "p:opened do_sys_openat2 dfd=%di"


def kprobes(*words: str, status: int = 0, output: int | None = subprocess.PIPE) -> str:
    done = subprocess.run([*KPROBES, *words], stdout=output, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_bundle_goes_into_a_pipe_and_doesnt_replace_it(tmp_path: Path) -> None:
    script, pipe = tmp_path / "script.py", tmp_path / "pipe"
    script.write_text(SCRIPT)
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        kprobes("export", "bundle", str(script), "-o", str(pipe), "--", "/bin/true")
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert os.read(reader, 4) == b"KPB1"
    finally:
        os.close(reader)


def test_a_module_is_not_written_over_files_of_others(tmp_path: Path) -> None:
    directory = tmp_path / "my project"
    directory.mkdir()
    makefile = directory / "Makefile"
    makefile.write_text("all: mine\n")
    refused = kprobes("export", "module", DEFINITION, "-o", str(directory), status=2)
    assert "Makefile is there already" in refused
    assert [one.name for one in directory.iterdir()] == ["Makefile"]
    assert makefile.read_text() == "all: mine\n"
    makefile.unlink()
    for _ in range(2):  # what an export has written the next one writes anew
        assert f"make -C '{directory}'" in kprobes("export", "module", DEFINITION, "-o", str(directory))


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    file = tmp_path / "definitions"
    file.write_text("p vfs_read\n")
    with Path("/dev/full").open("w") as full:
        told = kprobes("check", "--kernel", "6.1", str(file), status=1, output=full.fileno())
    assert told == "error: can't write: No space left on device\n"
