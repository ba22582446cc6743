"""Hits of a kernel, recorded and run again on the host."""

from __future__ import annotations

import re

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

probes = [
    definition("p:started vfs_read size=%dx:u32 user=+u0(%si):x64 %ip:symbol $stack0 file=%di", filter='comm == "dd"'),
    definition("r:returned vfs_read got=$retval:s64 %ip:symbol", filter='comm == "dd"'),
    definition("p:size vfs_read asked=$arg3 who=$comm", filter='comm == "dd" && asked == 512'),
]
"""
CHANGED = SCRIPT.replace("emit(ret, name, count,", "emit(file.f_path.dentry.d_name.name.string(4), ret * 2,")

DD = ("dd", "if=/dev/zero", "of=/dev/null", "count=20")


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_hits_of_a_kernel_are_replayed_without_it(kernel, guest_of, tmp_path):
    script, changed, hits = (tmp_path / name for name in ("script.py", "changed.py", "hits"))
    script.write_text(SCRIPT)
    changed.write_text(CHANGED)
    done = guest_of(kernel).command("run", f"--record={hits}", "--format", "json", str(script), "--", *DD)
    seen = sorted(shown(line) for line in done.errors.splitlines() if line.startswith("{") and "unmatched" not in line)
    assert len([line for line in seen if '"ret":512' in line]) == 20
    replayed = run_kprobes("replay", "--format", "json", str(hits), str(script))
    assert sorted(shown(line) for line in replayed.output.splitlines() if "unmatched" not in line) == seen
    assert "faults" not in replayed.errors
    for name in ("p:started", "r:returned", "p:size"):
        assert f'"event":"{name[2:]}"' in replayed.output
    again = run_kprobes("replay", "--format", "json", str(hits), str(changed))
    assert again.output.count('"ret * 2":1024') == 20


def shown(line):
    """Return an event without its time, and without the names that a recording doesn't have."""
    return re.sub(r'"time_ns":\d+,"time":"[^"]*",|,"\w*_name":"[^"]*"', "", line)
