"""Definitions by tracefs in each kernel, and lines as the kernel's own trace file has them, by either road."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from guest_harness import KPROBES, ROOT, TIMEOUT_S, Guest, drained, left_in

from kprobes import Session, definition
from kprobes.cli.ftrace_lines import FtraceTrace
from kprobes.events.decode import Decoder
from kprobes.events.record import Event
from kprobes.model import wire
from kprobes.model.plan import Plan
from kprobes.model.probe import Probe
from kprobes.planner.tracefs import plan_tracefs
from kprobes.render.ftrace import heading, style_of
from kprobes.symbols.frames import KernelFrames

READER = Path(__file__).with_name("trace_reader.py")
TRACING = "/sys/kernel/tracing"
WORK = (
    "read -r -n 8 line < /proc/version; cat /proc/version /nonexistent > /dev/null 2>&1; "
    "/root/calls openat /no/such 5; /root/calls sum 3 2; "
    "printf x > '/tmp/we\"ird\nname'; cat /tmp/we* > /dev/null; sleep 0.05"
)
OPENS = (
    r"do_sys_openat2 dfd=%di filename=+0(%si):string user=+0(%si):ustring how=+0(%dx):x64 low=+0(%dx):b4@0/32 five=\5"
)
EVERYWHERE = (
    f"p:opens {OPENS}",
    "r:opened do_sys_openat2 $retval fd=$retval:s32 comm=$comm",
    "p:mine/kinds vfs_read a=%dx:u8 b=%dx:s8 c=%dx:x16 d=%dx:s32 e=%dx words=+0($stack):x64[3] at=$stack0:symbol",
    r"p:kinds vfs_read ip=%ip:symbol bits=+0(%di):b4@4/16[3] bad=+0(\1):u32 worse=+0(\1):string",
    "p:tick update_process_times user=%di",
    "p:wake try_to_wake_up state=%si:u32",
)
NEWER = (
    "p:typed vfs_read $arg*",
    "p:named vfs_read name=$arg1:%pD first=+0(%si):char position=file->f_pos",
    "r:both vfs_read count=count result=$retval",
)


@dataclass
class Target:
    """As much of a session as the lines need."""

    plan: Plan
    release: str
    frames: KernelFrames

    def printed(self, address: int) -> str:
        return self.frames.printed(address)


def lines_of(target: Target | Session, events: list[Event]) -> bytes:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer)  # would close the buffer, were it gone
    FtraceTrace(target, stream).write(events)  # type: ignore[arg-type]
    return buffer.getvalue()


def sum_to(guest: Guest) -> str:
    """Return the place of a function of the tests' program, for a definition; it is linked to 0x400000 as a whole."""
    listed = subprocess.run(["nm", guest.programs / "calls"], capture_output=True, text=True, check=True).stdout
    address = next(int(line.split()[0], 16) for line in listed.splitlines() if line.endswith(" sum_to"))
    return f"/root/calls:{address - 0x400000:#x}"


def read_in(guest: Guest, probes: list[Probe], tmp_path: Path) -> tuple[Plan, bytes, bytes]:
    """Return the plan of *probes*, and what the reader wrote: the kernel's text and our records."""
    plan = plan_tracefs(probes, guest.machine.facts())
    file = tmp_path / "plan"
    file.write_bytes(wire.plan_to_bytes(plan))
    words = ["python3", f"/root/{READER.name}", "/root/plan", WORK]
    running = guest.machine.run(words, copy=[str(file), str(READER), str(guest.programs / "calls")])
    assert running.wait(TIMEOUT_S) == 0, running.error_output.decode()
    output = running.output
    size = int.from_bytes(output[:4], "little")
    return plan, output[4 : 4 + size], output[4 + size :]


def test_the_lines_are_those_of_the_kernels_trace_file_byte_for_byte(guest: Guest, tmp_path: Path) -> None:
    place = sum_to(guest)
    texts = [
        *EVERYWHERE,
        f"p:sum {place} top=%di word=+0(%sp):x64",
        f"r:back {place} $retval",
    ]
    if guest.kernel in ("6.12", "7.2"):
        texts += NEWER
    plan, theirs, records = read_in(guest, [definition(text, way="tracefs") for text in texts], tmp_path)
    facts = guest.machine.facts()
    target = Target(plan, facts.features.release, KernelFrames(facts.kallsyms()))
    events = Decoder(plan.events, [site.name for site in plan.sites]).decode_raw(records)
    ours = heading(style_of(target.release), cpus=2, entries=len(events)).encode() + lines_of(target, events)
    assert ours.splitlines() == theirs.splitlines()
    assert ours == theirs
    assert {event.layout.name for event in events} == {layout.name for layout in plan.events}
    assert left_in(guest) == ""


@contextmanager
def real_event(guest: Guest, text: str) -> Iterator[None]:
    """Let the kernel's own event `real/...` of a definition be recorded in an instance of its own."""
    name = f"real/{text[2:].split()[0]}"
    made = f"cd {TRACING}; mkdir instances/real; echo mono > instances/real/trace_clock; "
    made += f"echo '{text[:2]}real/{text[2:]}' >> kprobe_events; echo 1 > instances/real/events/{name}/enable"
    assert guest.shell(made).status == 0
    try:
        yield
    finally:
        ended = f"cd {TRACING}; echo 0 > instances/real/events/enable; rmdir instances/real; "
        guest.shell(f"{ended} echo -:{name} >> kprobe_events")


def real_lines(guest: Guest, process: int) -> list[str]:
    trace = guest.shell(f"cat {TRACING}/instances/real/trace").output
    return [masked(line) for line in trace.splitlines() if re.match(rf" *calls-{process} ", line)]


def masked(line: str) -> str:
    """Return *line* without what the other road can't know: the moment's flags, and the time by another reading."""
    return re.sub(r"(\[\d+\]) \S+ +[\d.]+: ", r"\1 ", line)


def own_lines(guest: Guest, text: str) -> tuple[list[str], int]:
    """Return our lines of the calls of a process, by BPF, and its number."""
    with guest.attach(definition(text)) as session:
        process = guest.call("openat", "/no/such/file", 20)
        ours = lines_of(session, [event for event in drained(session) if event["_pid"] == process])
    return [masked(line) for line in ours.decode().splitlines()], process


def test_a_line_by_bpf_is_that_of_the_kernels_own_event_of_the_same_hit(guest: Guest) -> None:
    text = f"p:opens {OPENS}"
    with real_event(guest, text):
        ours, process = own_lines(guest, text)
        assert ours == real_lines(guest, process)
        assert len(ours) == 20


def test_a_returns_line_by_bpf_is_that_of_the_kernels_own_event(guest: Guest) -> None:
    """One after the other: of two return probes one would see the other's trampoline as the place it returns to."""
    text = "r:opened do_sys_openat2 $retval fd=$retval:s32 comm=$comm"
    ours, process = own_lines(guest, text)
    with real_event(guest, text):
        other = guest.call("openat", "/no/such/file", 20)
        theirs = real_lines(guest, other)
    drop = re.compile(r"-\d+ +\[\d+\]")
    assert [drop.sub("", line) for line in ours] == [drop.sub("", line) for line in theirs]
    assert len(ours) == 20
    assert process != other


def test_a_definition_runs_without_bpf_and_counts_as_the_kernel_does(newest: Guest) -> None:
    condition = 'filename == "/no/such" && __probe_ip.function == do_sys_openat2'
    words = ["p:opens do_sys_openat2 filename=+0(%si):string", "--filter", condition]
    done = newest.command(
        "trace", "--engine", "tracefs", *words, "--format", "json",
        "--copy", str(newest.programs / "calls"), "--", "/root/calls", "openat", "/no/such", "7",
    )  # fmt: skip
    rows = [json.loads(line) for line in done.errors.splitlines() if line.startswith("{")]
    assert [(row["event"], row["comm"], row["args"]) for row in rows] == [
        ("opens", "calls", {"filename": "/no/such"})
    ] * 7
    assert [row["time_ns"] for row in rows] == sorted(row["time_ns"] for row in rows)
    assert "(tracefs), nothing missed" in done.errors
    assert left_in(newest) == ""


def test_a_symbol_as_a_string_is_not_left_to_the_kernel(newest: Guest) -> None:
    guest = newest
    words = ["--copy", str(guest.programs / "calls"), "--", "/root/calls", "openat", "/no/such", "3"]
    text = "p:where do_sys_openat2 at=%ip:symstr from=$stack0:symstr"
    done = guest.command("trace", "--engine", "tracefs", "--format", "ftrace", text, *words)
    shown = re.compile(r' at="do_sys_openat2\+0x\w+/0x\w+" from="__x64_sys_openat\+0x\w+/0x\w+"$')
    lines = [line for line in done.errors.splitlines() if " calls-" in line]
    assert len([line for line in lines if shown.search(line)]) == 3
    refused = guest.command("trace", "--engine", "tracefs", text, "--filter", 'at ~ "do*"', *words, status=1)
    assert "damage their memory" in refused.errors


def test_a_file_has_the_heading_of_the_trace_file(newest: Guest, tmp_path: Path) -> None:
    words = ["--copy", str(newest.programs / "calls"), "--", "/root/calls", "openat", "/no/such", "3"]
    file = tmp_path / "trace"
    definition = ["p:opens do_sys_openat2 name=+0(%si):string", "--filter", 'name == "/no/such"']
    newest.command("trace", "--format", "ftrace", "-o", str(file), *definition, *words)
    text = file.read_text()
    assert text.startswith(heading(style_of("6.12"), cpus=2, entries=3))
    assert text.count('name="/no/such"\n') == 3
    assert len(text.splitlines()) == 12 + 3


def test_plain_functions_become_events_by_their_prototypes(newest: Guest) -> None:
    words = ["--copy", str(newest.programs / "calls"), "--", "/root/calls", "openat", "/no/such", "7"]
    function = "do_sys_openat2"
    done = newest.command("trace", "--engine", "tracefs", "--format", "ftrace", function, f"r:{function}", *words)
    lines = [line for line in done.errors.splitlines() if " calls-" in line]
    shown = rf': {function}: \({function}\+0x\S+\) dfd=-100 filename="/no/such" how=0x'
    assert len([line for line in lines if re.search(shown, line)]) == 7
    assert len([line for line in lines if re.search(rf" <- {function}\) retval=-2$", line)]) == 7
    counted = newest.command("count", "--engine", "tracefs", function, "vfs_rea*", "--format", "json", *words)
    rows = [json.loads(line) for line in counted.errors.splitlines() if line.startswith("{")]
    assert next(row["hits"] for row in rows if row["probe"] == function) >= 7
    assert left_in(newest) == ""


def test_nothing_stays_in_a_guest_whose_controller_was_killed(newest: Guest) -> None:
    words = ["trace", f"--kernel={newest.kernel}", "--engine", "tracefs", "p:mine/opens do_sys_openat2", "vfs_read"]
    with subprocess.Popen([*KPROBES, *words], stdout=subprocess.PIPE, cwd=ROOT) as command:
        assert command.stdout is not None
        assert command.stdout.readline()
        assert command.stdout.readline()
        assert newest.shell(f"cat {TRACING}/kprobe_events").output.count("\n") == 2
        command.kill()
    assert left_in(newest) == ""
    assert newest.shell(f"ls {TRACING}/instances").output == ""


def test_a_kernels_refusal_has_its_message_and_leaves_nothing(newest: Guest) -> None:
    done = newest.command("trace", "--engine", "tracefs", "p:fine vfs_read", "p:wrong nosuch_function_here", status=1)
    assert done.errors.startswith("error: ")
    assert "Traceback" not in done.errors
    assert left_in(newest) == ""
