"""Handlers that need more than a BPF stack load on each kernel, by each way in, and see what small ones see."""

from __future__ import annotations

from pathlib import Path

import pytest
from guest_harness import TIMEOUT_S, Guest, left_in

from kprobes.cli.run import load_script
from kprobes.model.probe import Probe

HEAD = "from kprobes import arg, deref, emit, kprobe, kretprobe, uprobe\n\n"


def handler(decorator: str, parameters: str, *lines: str) -> str:
    return f"@{decorator}\ndef big({parameters}):\n" + "".join(f"    {line}\n" for line in lines)


def fields(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def emitted(names: list[str]) -> str:
    return "emit(" + ", ".join(f"{name}={name}" for name in names) + ")"


# Each value is read anew, so all of an event are the same: `v` the flags, `s` the name of the file.
READS = [f"v{number} = file.f_flags" for number in range(100)]
NAMES = [f"s{number} = file.f_path.dentry.d_name.name.string(32)" for number in range(16)]
MANY = emitted(fields("v", 100) + fields("s", 16))
INLINED = "\n".join(
    [f"def f{depth}(x, file):\n    a = x + 1\n    b = file.f_flags\n    return f{depth + 1}(a + b, file) + a - b\n"
     for depth in range(12)]
    + ["def f12(x, file):\n    return x + file.f_flags\n"]
)  # fmt: skip

SCRIPTS = {
    "entry": handler('kprobe("vfs_read")', "file, count", *READS, *NAMES, MANY),
    "kprobe": handler('kprobe("vfs_read", way="kprobe")', "file, count", *READS, *NAMES, MANY),
    "many sites": handler('kprobe("vfs_read", "vfs_write")', "file", *READS, *NAMES, MANY),
    "pair": handler('kretprobe("vfs_read")', "file", *READS, *NAMES, "yield", MANY),
    "kretprobe": handler('kretprobe("vfs_read", way="kprobe")', "file", *READS, *NAMES, "yield", MANY),
    "loop": handler(
        'kprobe("vfs_read")', "file",
        *[f"v{number} = 0" for number in range(100)],
        "for turn in range(3):",
        *[f"    v{number} = v{number} * 2 + file.f_flags" for number in range(100)],
        emitted(fields("v", 100)),
    ),
    "inlined": INLINED + "\n" + handler('kprobe("vfs_read")', "file",
                                        *[f"v{number} = f0(5, file)" for number in range(8)], emitted(fields("v", 8))),
}  # fmt: skip


# What one call keeps in working memory comes from its argument; a read between two of them keeps them out of registers.
CROSSED = "".join(
    f"    v{number} = ARG * {number + 3}\n    r{number} = deref(v{number}, 'u32')\n" for number in range(40)
)
CROWD = {
    "fentry": ("seek", "@kprobe('ksys_lseek')\ndef big(offset):\n" + CROSSED.replace("ARG", "offset")),
    "kprobe": ("seek", "@kprobe('ksys_lseek', way='kprobe')\ndef big(offset):\n" + CROSSED.replace("ARG", "offset")),
    "uprobe": ("sum", "@uprobe('PROGRAM:sum_to')\ndef big():\n    top = arg(1)\n" + CROSSED.replace("ARG", "top")),
}


@pytest.mark.parametrize("name", CROWD)
def test_hits_of_many_tasks_on_one_cpu_do_not_mix_what_they_keep(guest: Guest, tmp_path: Path, name: str) -> None:
    """Where a hit finds the memory in use, it is missed; whatever is sent is of one call."""
    program = str(guest.programs / "calls")
    assert guest.machine.run(["true"], copy=[f"{program}:{program}"]).wait(TIMEOUT_S) == 0
    work, text = CROWD[name]
    text = text.replace("PROGRAM", program) + f"    {emitted(fields('v', 40) + fields('r', 40))}\n"
    with guest.attach(probe_of(tmp_path, text)) as session:
        arguments = ["seek", "16", "100"] if work == "seek" else ["sum", "40", "20"]
        running = [guest.machine.run([program, *arguments]) for _ in range(3)]
        assert [one.wait(TIMEOUT_S) for one in running] == [0, 0, 0]
        session.detach()
        events = list(session.events(0))
        assert any(layout.kind == "scratch" for layout in session.plan.maps)
        counts = session.stats
    hits, missed = sum(one.hits for one in counts), sum(one.missed or 0 for one in counts)
    assert hits + missed >= (3 * 1600 if work == "seek" else 3 * 20 * 41)
    assert len(events) + sum(one.lost for one in counts) == hits
    for event in events:
        values = [event[f"v{number}"] for number in range(40)]
        assert values == [values[0] // 3 * (number + 3) for number in range(40)], event


def probe_of(tmp_path: Path, text: str) -> Probe:
    script = tmp_path / "script.py"
    script.write_text(HEAD + text)
    probe = load_script(str(script))["big"]
    assert isinstance(probe, Probe)
    return probe


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_big_handler_loads_and_every_value_is_right(guest: Guest, tmp_path: Path, name: str) -> None:
    with guest.attach(probe_of(tmp_path, SCRIPTS[name])) as session:
        guest.shell("dd if=/proc/version of=/dev/null bs=64 count=2")
        session.detach()
        events = list(session.events(0))
        missed = sum(one.missed or 0 for one in session.stats)
        assert missed == 0 or guest.preemptible
        assert any(layout.kind == "scratch" for layout in session.plan.maps) or name == "inlined"
    assert len(events) + missed >= 2
    for event in events:
        values = {value for field, value in event.fields.items() if field[0] == "v"}
        names = {value for field, value in event.fields.items() if field[0] == "s"}
        assert len(values) == 1, event
        assert len(names) <= 1, event
    if name != "loop" and name != "inlined" and not missed:
        assert "version" in {event["s0"] for event in events}
    assert left_in(guest) == ""
