"""Exported modules are built against the headers of Debian's kernels, loaded there, and count what BPF counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from guest_harness import ROOT, TIMEOUT_S, Guest, hits, run_kprobes

from kprobes import Machine, definition, kprobe, kretprobe
from kprobes.cli.export_module import FRAME
from kprobes.cli.run import load_script, probes_of
from kprobes.errors import CompileError, UsageError
from kprobes.events.average import Average
from kprobes.export.cnaming import Names
from kprobes.export.script import script_parts
from kprobes.model.facts import Facts

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
    assert copied.wait(TIMEOUT_S) == 0, copied.error_output
    try:
        yield module
    finally:
        removed = guest.machine.run(["rmmod", name])  # a shell would make system calls of its own
        assert removed.wait(TIMEOUT_S) == 0, removed.error_output
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


def test_symbols_that_are_not_exported_are_found_without_a_call_through_their_address(guest, tmp_path):
    text = "p:asked __x64_sys_getppid banner=@linux_banner:string start=@vfs_read:x64 next=@vfs_read+16:x64"
    with guest.attach(definition(text)) as session, loaded(guest, tmp_path, text) as module:
        guest.call("getppid", 1)
        session.detach()
        event = next(iter(session.events(0)))
    shown = next(line for line in module.log if line.startswith("asked: "))
    assert f' banner="{event.banner[:100]}' in shown
    assert event.banner.startswith("Linux version ")
    assert shown.endswith(f" start={event.start:#x} next={event.next:#x}")  # also where probes stand behind an ENDBR


def fields_in(line: str) -> dict[str, str]:
    """Return what an event of a module says."""
    return dict(re.findall(r'([\w.]+)=("[^"]*"|\S+)', line))


def as_told(value: object) -> str:
    """Return *value* of an event as a module tells it."""
    return f'"{value}"' if isinstance(value, str) else str(int(value))


def by_key(log: list[str], name: str) -> dict[str, int]:
    """Return what the report of a module says of the map *name*."""
    found = (re.fullmatch(rf"{name}(?:\[([^\]]*)\])?: (-?\d+)", line) for line in log)
    return {one[1] or "": int(one[2]) for one in found if one}


def buckets(log: list[str], name: str) -> dict[str, int]:
    """Return the sum of all buckets by key of the histogram *name*."""
    sums: dict[str, int] = {}
    for line in log:
        one = re.fullmatch(rf"{name}(?:\[([^\]]*)\])?: .+: (\d+)", line)
        if one:
            sums[one[1] or ""] = sums.get(one[1] or "", 0) + int(one[2])
    return sums


def test_scripts_compute_and_count_in_a_module_what_they_do_in_bpf(guest, tmp_path):
    here = Path(__file__).parent / "exported"
    examples = ["vfslatency", "argdist", "slower"]
    own = [str(here / name) for name in ("language.py", "samples.py", "tables.py")]
    scripts = [*own, *(f"examples/{one}.py" for one in examples)]
    named = load_script(scripts[0])
    with (
        guest.attach(*probes_of(named, scripts[0])) as session,
        loaded(guest, tmp_path, *scripts, parameters="limit_us=-1") as module,
    ):
        guest.call("seek", 2, 20)
        guest.call("write", 100, CALLS)
        guest.call("getppid", 3)
        session.detach()
        told = sorted(sorted((k, as_told(v)) for k, v in one.fields.items()) for one in session.events(0))
        held = {name: session[named[name]] for name in ("seen", "once", "total", "every")}
        stats = session.stats[0]
    events = sorted(sorted(fields_in(line).items()) for line in module.log if line.startswith("sought: "))
    assert len(told) == 40
    assert events == told
    counts = module.counts()
    # insmod itself looks for the end of its file before the module is there
    assert 40 <= counts["sought"][0] <= stats.hits
    assert counts["sought"][1:] == (0, stats.faults)
    assert by_key(module.log, "seen") == {str(key): value for key, value in held["seen"].items()}
    assert by_key(module.log, "total") == {str(key): value for key, value in held["total"].items()}
    assert by_key(module.log, "once") == {f"{key[0]}, {key[1]}": value for key, value in held["once"].items()}
    assert by_key(module.log, "every") == {"": held["every"]}
    assert buckets(module.log, "by_what") == {"calls, 0": 40}
    assert buckets(module.log, "tens") == {"": 40}
    assert buckets(module.log, "write_usecs")["calls"] == CALLS
    assert buckets(module.log, "bytes_to_write")["calls"] == CALLS
    assert buckets(module.log, "small_writes")[""] >= CALLS
    assert any(line.startswith("slow_read: ") and 'comm="' in line for line in module.log)
    around = [line for line in module.log if line.startswith(("pre: ", "post: "))]
    assert len(around) == 6
    assert all(re.fullmatch(r"pre: __\w+_sys_getppid\S* flags 0x\w+|post: moved (0|8)", line) for line in around)
    assert len([line for line in module.log if line.startswith("timed: returned 1 after ")]) == 3
    assert by_key(module.log, "newest") == {"2": 20, "3": 30}
    assert by_key(module.log, "first") == {"1": 10, "2": 20}
    assert by_key(module.log, "passing") == {}
    assert counts["numbered"][1:] == (0, 1)  # the third found no room in `first`


def test_what_is_folded_in_a_module_is_what_is_in_bpf(guest, tmp_path):
    script = str(Path(__file__).parent / "exported" / "folded.py")
    named = load_script(script)
    with guest.attach(*probes_of(named, script)) as session, loaded(guest, tmp_path, script) as module:
        guest.call("seek", 2, 20)
        session.detach()
        held = {name: session[named[name]] for name in ("least", "most", "mean", "lowest", "never", "middle", "slots")}
        (failed,) = session.asserts
        faults = session.stats[0].faults
    assert by_key(module.log, "least") == {str(key): value for key, value in held["least"].items()}
    assert by_key(module.log, "most") == {f"{key[0]}, {key[1]}": value for key, value in held["most"].items()}
    assert by_key(module.log, "lowest") == {"": held["lowest"]}
    assert "never: no value" in module.log
    means = {line for line in module.log if line.startswith(("mean", "middle"))}
    expected = {f"mean[{key}]: {told(value)}" for key, value in held["mean"].items()}
    assert means == expected | {f"middle: {told(held['middle'])}"}
    assert by_key(module.log, "slots") == {str(at): value for at, value in enumerate(held["slots"]) if value}
    assert module.counts()["gathered"][1:] == (0, faults)
    line = f"folded.py:{failed.assertion.line}: offset & 1: only odd places"
    assert f"assertion failed: {line}" in module.log
    assert f"assertion failed {failed.failed} times: {line}" in module.log


def told(average: Average) -> str:
    """Return how a module tells *average*; C divides towards zero."""
    return f"{average.count} values, total {average.total}, mean {int(average.total / average.count)}"


ROW = re.compile(r"\| ((?:`\w+` ?)+)\| (yes|no) \| ([^|]*)\|")


def test_the_documentation_tells_which_examples_become_modules(guest_of):
    guest_of("6.12")
    told = {
        name: row[3].split(", ")[0].strip() if row[2] == "no" else ""
        for row in ROW.finditer((ROOT / "docs" / "export.md").read_text())
        for name in re.findall(r"\w+", row[1])
    }
    examples = {one.stem: str(one) for one in (ROOT / "examples").glob("*.py")}
    assert told.keys() == examples.keys()
    engine = Machine("6.12").open()
    try:
        for name, path in examples.items():
            why = why_not(path, engine.facts())
            assert bool(why) == bool(told[name]), (name, why)
            assert told[name] in why, (name, why)
    finally:
        engine.close()


def why_not(path: str, facts: Facts) -> str:
    """Return why a script is not exported, empty where it is."""
    try:
        script_parts(probes_of(load_script(path), path), facts, Names(FRAME))
    except (CompileError, UsageError) as error:
        return str(error)
    return ""
