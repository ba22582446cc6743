"""Kernels of arm64 in a box: the same scripts give what they give on x86-64, and real kernels judge definitions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from definition_truth import FILES, GuestFiles, ask, differences, parsed
from definition_writer import Writer
from guest_harness import Guest, complete, drained, left_in, run_kprobes
from seeds import SEED

import kprobes
from kprobes import (
    Count,
    Histogram,
    Kprobe,
    Kretprobe,
    Module,
    arg,
    comm,
    emit,
    function,
    instruction_pointer,
    kprobe,
    kretprobe,
    regs,
    regs_get_kernel_argument,
    regs_return_value,
    stack,
    symbol,
    tracepoint,
)
from kprobes.cli.check import world_of
from kprobes.engines.vm.arches import AARCH64
from kprobes.engines.vm.kernels import FOREIGN_NAMES
from kprobes.errors import CompileError, UsageError
from kprobes.grammar.facts import dialect

SIZE, TIMES = 1000, 40
COPY = f"dd if=/dev/zero of=/dev/null bs={SIZE} count={TIMES}"
LINES = 150
PROGRAM = Path(__file__).parents[1] / "programs" / "definitions.py"
REGISTERS = ("x0", "x1", "x2", "x8", "x30", "sp", "pc", "pstate", "lr")
BAD_REGISTERS = ("di", "foo", "", "x31", "w0", "fp", "X0")


@pytest.fixture
def arm64(guest_of: Callable[[str], Guest]) -> Guest:
    """Return the guest of the newest kernel for arm64."""
    return guest_of(FOREIGN_NAMES[-1])


@pytest.fixture(params=FOREIGN_NAMES)
def each(request: pytest.FixtureRequest, guest_of: Callable[[str], Guest]) -> Iterator[Guest]:
    """Return the guest of each kernel for arm64 in turn."""
    return guest_of(request.param)


def reading(guest: Guest) -> tuple[dict[str, object], int]:
    """Return what probes of several kinds saw of one run of `COPY`, and how many hits were missed."""
    calls, sizes = Count("calls", by=str), Histogram("sizes")

    @kretprobe("vfs_read")
    def read(file, count):
        if comm() != "dd" or count != 1000:
            return
        name = file.f_path.dentry.d_name.name.string()
        ret = yield
        calls.add(by=comm())
        sizes.add(ret)
        emit(name, count, ret)

    @kprobe("ksys_write")
    def write(fd, count):
        if comm() == "dd" and count == 1000:
            emit(fd, count, again=arg(3))

    @tracepoint("syscalls:sys_enter_write")
    def enter(fd, count):
        if comm() == "dd" and count == 1000:
            emit(fd, count)

    with guest.attach(read, write, enter) as session:
        assert guest.shell(COPY).status == 0
        events = drained(session)
        seen: dict[str, object] = {
            name: [dict(event.fields) for event in events if event.layout.name == name]
            for name in ("read", "write", "enter")
        }
        missed = sum(one.missed or 0 for one in session.stats)
        return {**seen, "calls": session[calls], "sizes": session[sizes]}, missed


@pytest.fixture(scope="module")
def on_x86_64(guest_of: Callable[[str], Guest]) -> dict[str, object]:
    """Return what `reading` gives on x86-64."""
    seen, missed = reading(guest_of("6.12"))
    assert not missed
    return seen


def test_a_script_sees_on_arm64_what_it_sees_on_x86_64(each: Guest, on_x86_64: dict[str, object]) -> None:
    there, missed = reading(each)
    assert there == on_x86_64 or (missed and each.preemptible)
    rows = {
        "read": {"name": "zero", "count": SIZE, "ret": SIZE},
        "write": {"fd": 1, "count": SIZE, "again": SIZE},
        "enter": {"fd": 1, "count": SIZE},
    }
    for name, row in rows.items():
        assert all(one == row for one in there[name])
        assert TIMES - missed <= len(there[name]) <= TIMES
    assert there["calls"] == {"dd": len(there["read"])}
    assert left_in(each) == ""


@pytest.mark.parametrize("way", ["fentry", "kprobe.multi", "kprobe"])
def test_entry_and_return_of_a_call_are_matched_by_every_way(each: Guest, way: str) -> None:
    features = each.machine.facts().features
    there = {"fentry": features.fentry, "kprobe.multi": features.kprobe_multi, "kprobe": True}
    assert there["fentry"] is (not each.kernel.startswith("6.1-"))
    if not there[way]:
        return
    same, other = Count("same"), Count("other")

    @kretprobe("vfs_read", "vfs_write", way=way)
    def call(file, buf, count):
        wanted = count
        got = yield
        if comm() == "dd" and wanted == 1000:
            if got == wanted:
                same.add()
            else:
                other.add()

    with each.attach(call) as session:
        each.shell(COPY)
        session.detach()
        assert complete(each, session, session[same], 2 * TIMES)
        assert session[other] == 0


def test_registers_stack_and_function_are_those_of_the_hit(each: Guest) -> None:
    @kprobe("vfs_read")
    def hit(file, count):
        if comm() == "dd" and count == 1000:
            emit(first=regs.x0 == file, third=regs.x2, link=symbol(regs.lr), pc=regs.pc == function(), where=stack())

    with each.attach(hit) as session:
        each.shell(COPY)
        events = drained(session)
        frames = session.stack(int(events[0].where)) if events else []
    assert len(events) == TIMES
    assert {(event.first, event.third, event.pc) for event in events} == {(True, SIZE, True)}
    assert "ksys_read" in str(session.known(events[0].link))
    assert any("vfs_read" in frame for frame in frames)
    assert any("el0_svc" in frame for frame in frames)


def test_registers_of_x86_64_are_refused_with_those_of_arm64(arm64: Guest) -> None:
    @kprobe("vfs_read")
    def hit():
        emit(regs.di)

    with pytest.raises(CompileError, match="no register 'di'") as caught:
        arm64.attach(hit)
    assert "x0" in caught.value.hint


def test_parser_and_kernels_of_arm64_agree_on_generated_definitions(
    each: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("definition_writer.REGISTERS", REGISTERS)
    monkeypatch.setattr("definition_writer.BAD_REGISTERS", BAD_REGISTERS)
    world, language = world_of(each.machine, GuestFiles()), dialect(each.kernel.partition("-")[0], AARCH64.name)
    for kind in ("kprobe", "uprobe", "dynamic"):
        sequences = Writer(SEED, kind, FILES).sequences(LINES)
        real = ask(each.machine, PROGRAM, kind, sequences)
        ours = parsed(language, kind, world, sequences)
        assert list(differences(sequences, real, ours)) == []
        assert {answer.errno for answers in real for answer in answers} >= {0, 22}


DEFINITIONS = (
    "p:one vfs_read count=%x2 again=$arg3 pointer=+0(%x0):x32 stack=$stack0 link=%lr:x64 me=$comm none=$arg9",
    "r:one vfs_read got=$retval:s64",
)


@pytest.mark.parametrize("text", DEFINITIONS)
def test_a_definition_gives_what_the_kernels_own_event_gives(arm64: Guest, text: str) -> None:
    tracefs = "/sys/kernel/tracing"
    switch = f"{tracefs}/events/kprobes/enable"
    with arm64.attach(kprobes.definition(text)) as session:
        shown = arm64.shell(
            f"echo '{text}' > {tracefs}/kprobe_events; echo > {tracefs}/trace; echo 1 > {switch};"
            f"{COPY} 2>/dev/null; echo 0 > {switch}; cat {tracefs}/trace;"
            f"echo > {tracefs}/kprobe_events"
        ).output
        ours = [event for event in drained(session) if event.fields["_comm"] == "dd"]
    lines = [line.partition(": one: ")[2] for line in shown.splitlines() if " dd-" in line]
    theirs = [dict(re.findall(r"(\w+)=(\S+)", line.replace('"', ""))) for line in lines]
    assert len(theirs) >= TIMES
    names = theirs[0].keys()
    told = [{name: str(event.fields[name]) for name in names} for event in ours]
    assert told == theirs


def test_commands_take_the_architecture(arm64: Guest) -> None:
    arm64.machine.wait_ready()
    version = arm64.kernel.partition("-")[0]
    done = run_kprobes("trace", f"--vm={version}", "--arch", "arm64", "vfs_read", "--print", "regs.x2", "-n", "2")
    assert len(done.output.splitlines()) >= 2
    script = "p vfs_read %x0\np vfs_read %di\n"
    rows = run_kprobes("check", f"--vm={version}", "--arch=arm64", "--json", "-", status=1, text=script).output
    assert [json.loads(row)["ok"] for row in rows.splitlines()] == [True, False]
    assert "vfs_read(struct file *file" in run_kprobes("info", f"--vm={arm64.kernel}", "vfs_read").output
    assert "vfs_read" in run_kprobes("list", f"--vm={arm64.kernel}", "vfs_re*").output


def test_what_is_known_of_x86_64_alone_says_so(arm64: Guest) -> None:
    done = arm64.command("explain", "vfs_read", status=1)
    assert "x86-64" in done.errors
    assert "aarch64" in done.errors


def before(p, regs):
    if comm() == "dd" and regs.x2 == 1000:
        emit(at=instruction_pointer(regs) == p.addr, third=regs_get_kernel_argument(regs, 2))
    return 0


def entered(ri, regs):
    if comm() != "dd" or regs.x2 != 1000:
        return 1
    ri.data.asked = regs.x2
    return 0


def left(ri, regs):
    emit(got=regs_return_value(regs), asked=ri.data.asked, back=symbol(ri.ret_addr))
    return 0


def test_probes_are_registered_as_in_c(each: Guest) -> None:
    probe = Kprobe(symbol_name="vfs_read", pre_handler=before)
    returning = Kretprobe(symbol_name="vfs_read", handler=left, entry_handler=entered, data_size=8)
    with Module(each.target) as module:
        module.register(probe, returning)
        each.shell(COPY)
        found = [event for session in module.sessions for event in drained(session)]
        callers = {str(module.sessions[0].known(event.back)) for event in found if event.layout.name == "left"}
    told = [tuple(int(value) for name, value in event.fields.items() if name != "back") for event in found]
    assert len(told) == 2 * TIMES
    assert set(told) == {(True, SIZE), (SIZE, SIZE)}
    assert [caller.partition("+")[0] for caller in callers] == ["ksys_read"]


def test_recorded_hits_of_arm64_are_replayed(arm64: Guest, tmp_path: Path) -> None:
    script, kept = tmp_path / "script.py", tmp_path / "kept"
    script.write_text("""
from kprobes import comm, emit, kprobe, regs

@kprobe("vfs_read")
def reads(file, count):
    if comm() == "dd" and count == 1000:
        emit(count, third=regs.x2, name=file.f_path.dentry.d_name.name.string())
""")
    arm64.command("run", "--record", str(kept), str(script), "--", *COPY.split())
    done = run_kprobes("replay", "--format=json", str(kept), str(script))
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [(row["count"], row["third"], row["name"]) for row in rows if "third" in row] == [
        (SIZE, SIZE, "zero")
    ] * TIMES


def test_an_architecture_or_kernel_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no kernel") as caught:
        kprobes.Machine("5.10", arch="arm64").open()
    assert "6.12" in caught.value.hint
    done = run_kprobes("trace", "--arch", "riscv64", "vfs_read", status=2)
    assert "riscv64" in done.errors
