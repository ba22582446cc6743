"""Exported modules are built against the headers of Debian's kernels, loaded there, and count what BPF counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from guest_harness import Guest, hits, run_kprobes

from kprobes import kprobe, kretprobe

KERNELS = ("6.1", "6.12")
CALLS = 50
COUNTS = re.compile(r"(?P<name>\w+) at \S+: hits (?P<hits>\d+), missed (?P<missed>\d+), faults (?P<faults>\d+)")


@pytest.fixture(params=KERNELS)
def guest(request: pytest.FixtureRequest, guest_of: Callable[[str], Guest]) -> Guest:
    """Return the guest of each kernel whose headers modules are built against."""
    return guest_of(request.param)


@dataclass
class Loaded:
    """A module in a guest; *log* is what it has said once it is removed."""

    name: str
    log: list[str]

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Return hits, misses and faults by the name of the probe."""
        found = (COUNTS.fullmatch(line) for line in self.log)
        return {one["name"]: (int(one["hits"]), int(one["missed"]), int(one["faults"])) for one in found if one}


@contextmanager
def loaded(guest: Guest, tmp_path: Path, *items: str, parameters: str = "") -> Iterator[Loaded]:
    """Export, build and load a module; remove it at the end."""
    name = f"probes{abs(hash((guest.kernel, items))) % 10**6}"
    done = run_kprobes("export", "module", f"--vm={guest.kernel}", "--build", *items, "-o", str(tmp_path / name))
    assert "warning" not in done.errors
    module = Loaded(name, [])
    copied = guest.machine.run(
        ["insmod", f"/root/{name}.ko", *parameters.split()], copy=[str(tmp_path / name / f"{name}.ko")]
    )
    assert copied.wait(60) == 0, copied.error_output
    try:
        yield module
    finally:
        removed = guest.machine.run(["rmmod", name])  # a shell would make system calls of its own
        assert removed.wait(60) == 0, removed.error_output
        done = guest.shell(f"dmesg | grep ' {name}: '")
        module.log += [line.partition(f"{name}: ")[2] for line in done.output.splitlines()]


def test_definitions_count_as_bpf_does_and_show_what_a_trace_shows(guest, tmp_path):
    @kprobe("__x64_sys_getppid")
    def entered():
        pass

    @kretprobe("__x64_sys_getppid")
    def left():
        pass

    definitions = (
        "p:asked __x64_sys_getppid number=+0x78(%di):u64 comm=$comm",
        "r:answered __x64_sys_getppid parent=$retval:s32",
        "p:opened do_sys_openat2 dfd=%di:s32 name=+0(%si):string wild=+0(+8(%dx)):u8",
    )
    with guest.attach(entered) as one, guest.attach(left) as other, loaded(guest, tmp_path, *definitions) as module:
        guest.call("getppid", CALLS)
        guest.call("openat", "/etc/no/such/file", 3)
        assert hits(one) == hits(other) == CALLS
    counts = module.counts()
    assert counts["asked"] == (CALLS, 0, 0)
    assert counts["answered"] == (CALLS, 0, 0)
    asked = [line for line in module.log if line.startswith("asked: ")]
    assert len(asked) == CALLS
    assert all(line.endswith(' number=110 comm="calls"') for line in asked)
    opened = [line for line in module.log if "no/such" in line]
    assert len(opened) == 3
    assert all(' dfd=-100 name="/etc/no/such/file" wild=0' in line for line in opened)
    assert counts["opened"][2] >= 3
