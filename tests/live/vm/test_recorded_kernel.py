"""Hits of a kernel, recorded and run again on the host."""

from __future__ import annotations

import pytest
from guest_harness import run_kprobes

SCRIPT = """
from kprobes import *
sizes = Count("sizes", by=String(32))

@kretprobe("vfs_write")
def written(file, count):
    name = file.f_path.dentry.d_name.name.string(32)
    start = now()
    ret = yield
    if comm == "dd":
        sizes.add(ret, by=name)
        emit(ret, name, count, cpu, task().parent.pid, pid, took=now() > start)

@tracepoint("sched:sched_process_exec")
def execed(filename, pid):
    emit(filename, pid)

@kprobe("do_sys_openat2", way="kprobe")
def opened(filename):
    if comm == "dd":
        emit(filename.string(40), regs.di)
"""
CHANGED = SCRIPT.replace("emit(ret, name, count,", "emit(file.f_path.dentry.d_name.name.string(4), ret * 2,")

DD = ("dd", "if=/dev/zero", "of=/dev/null", "count=20")


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_hits_of_a_kernel_are_replayed_without_it(kernel, guest_of, tmp_path):
    script, changed, hits = (tmp_path / name for name in ("script.py", "changed.py", "hits"))
    script.write_text(SCRIPT)
    changed.write_text(CHANGED)
    done = guest_of(kernel).command("run", f"--record={hits}", "--format", "json", str(script), "--", *DD)
    seen = sorted(line for line in done.errors.splitlines() if line.startswith("{"))
    assert len([line for line in seen if '"ret":512' in line]) == 20
    replayed = run_kprobes("replay", "--format", "json", str(hits), str(script))
    assert sorted(replayed.output.splitlines()) == seen
    assert "faults" not in replayed.errors
    again = run_kprobes("replay", "--format", "json", str(hits), str(changed))
    assert again.output.count('"ret * 2":1024') == 20
