"""Uprobes of this machine's kernel by tracefs, without BPF: the kernel's own events, read from its raw buffers."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from process_harness import functions_of

from kprobes import Session, definition, log, uprobe
from kprobes.cli.ftrace_lines import FtraceTrace
from kprobes.cli.main import INTERRUPTED
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.engines.kernel.files import KernelFiles
from kprobes.errors import DefinitionError, UnsupportedError, UsageError
from kprobes.frozen import replace
from kprobes.model.plan import Plan, Way
from kprobes.model.within import Within
from kprobes.render.ftrace import heading, style_of
from kprobes.session import attach_to

KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
ARGUMENTS = (
    r"number=%di:s32 name=+0(%si):string low=+0(%dx):s16 both=+0(%dx):s16[2] bit=+4(%dx):b4@8/32 "
    r"raw=+4(%dx):x32 five=\5 who=$comm bad=+0(\1):string"
)
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def tracefs() -> Iterator[Path]:
    """Return where the kernel's tracefs is, for the time of the tests."""
    files = KernelFiles()
    yield Path(files.root("tracefs"))
    files.close()


@pytest.fixture
def program(build: Callable[..., Path], tracefs: Path) -> Iterator[Path]:
    """Return a program at fixed addresses; nothing of ours is left in tracefs at the end."""
    yield build("traced.c", "-no-pie", "-fno-pie")
    assert left(tracefs) == []


def present(tracefs: Path) -> list[str]:
    """Return our instances, and all events."""
    names = [one.name for one in (tracefs / "instances").iterdir() if one.name.startswith("kprobes_py")]
    return names + tracefs.joinpath("uprobe_events").read_text().splitlines()


def left(tracefs: Path) -> list[str]:
    """Return our instances and events, once the kernel has let go of them."""
    end = time.monotonic() + TIMEOUT_S
    while (names := present(tracefs)) and time.monotonic() < end:
        time.sleep(0.05)
    return names


def entry(program: Path) -> int:
    return next(offset for name, offset, _ in functions_of(program) if name == "work")


def definitions(program: Path, group: str = "") -> list[str]:
    place = f"{program}:{entry(program):#x}"
    return [f"p:{group}entry {place} {ARGUMENTS}", f"r:{group}back {place} $retval:s64 raw=$retval"]


@contextmanager
def running(program: Path, count: int, threads: int = 1, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(program), str(count), str(threads), *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[bytes]) -> None:
    process.communicate(b"\n", timeout=TIMEOUT_S)
    assert process.returncode == 0


def attached(process: subprocess.Popen[bytes], *texts: str, condition: str = "") -> Session:
    probes = [definition(text, way=Way.TRACEFS, filter=condition) for text in texts]
    engine = KernelEngine()
    try:
        return attach_to(engine, *probes, within=Within(process.pid))
    except BaseException:
        engine.close()
        raise


def lines_of(session: Session) -> bytes:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer)  # would close the buffer, were it gone
    FtraceTrace(session, stream).write(list(session.events(0)))
    return buffer.getvalue()


def kprobes(*words: str, text: str = "\n", status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*KPROBES, *words], capture_output=True, text=True, timeout=TIMEOUT_S, input=text)
    assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    return done


def test_the_lines_are_those_of_the_kernels_trace_file_byte_for_byte(program: Path, tracefs: Path) -> None:
    with running(program, 50, 2) as process, attached(process, *definitions(program)) as session:
        go(process)
        session.detach()
        (instance,) = (one for one in (tracefs / "instances").iterdir() if one.name.startswith("kprobes_py"))
        # The option that lets the kernel keep processes would show them as well.
        (instance / "options" / "record-tgid").write_text("0")
        theirs = (instance / "trace").read_bytes()
        ours = lines_of(session)
        cpus = os.sysconf("SC_NPROCESSORS_ONLN")
        assert heading(style_of(os.uname().release), cpus=cpus, entries=200).encode() + ours == theirs
        assert sum(one.hits for one in session.stats) == 200
        assert b'name="some "text"" low=-3 both={-3,7} bit=2 raw=0xabcd1234 five=0x5 who="traced-' in ours


def masked(output: str) -> list[str]:
    """Return lines without what differs from run to run: thread, CPU and time."""
    return [re.sub(r"^( *\S+)-\d+ +\[\d+\] (\S+) +[\d.]+: ", r"\1 \2 ", line) for line in output.splitlines() if line]


@pytest.mark.parametrize("engine", ["uprobe", "process"])
def test_the_lines_of_other_engines_are_the_same(program: Path, engine: str) -> None:
    words = ["--format", "ftrace", "-n", "20", *definitions(program), "--", str(program), "10", "1"]
    theirs = kprobes("trace", "--engine", "tracefs", *words).stderr.partition(" hits in ")[0]
    ours = kprobes("trace", "--engine", engine, *words).stderr.partition(" hits in ")[0]
    assert masked(ours)[:20] == masked(theirs)[:20]
    assert len(masked(ours)) == 21


def test_plain_places_become_events_by_their_prototypes(program: Path) -> None:
    done = kprobes("trace", "--engine", "tracefs", "work", "r:work", "--format", "json", "--", str(program), "2", "1")
    rows = [json.loads(line)["args"] for line in done.stderr.splitlines() if line.startswith("{")]
    assert [row.pop("both", None) is None for row in rows] == [False, True, False, True]
    assert rows == [
        {"number": 0, "name": 'some "text"'}, {"retval": 112}, {"number": 1, "name": 'some "text"'}, {"retval": 114}
    ]  # fmt: skip
    assert "4 hits" in done.stderr
    assert "(tracefs), nothing missed" in done.stderr


def test_only_the_process_is_counted_not_its_children_nor_others(program: Path) -> None:
    with running(program, 30, 3, "fork") as process, attached(process, *definitions(program)) as session:
        with running(program, 10) as other:
            go(other)
        go(process)
        session.detach()
        events = list(session.events(0))
        assert {event["_pid"] for event in events} == {process.pid}
        assert len({event["_tid"] for event in events}) == 3
        assert len(events) == 30 * 3 * 2
        assert [one.hits for one in session.stats] == [90, 90]
    done = kprobes("count", "--engine", "tracefs", "--format", "json", "work", "--", str(program), "30", "3", "fork")
    assert '"hits":90' in done.stderr.replace(" ", "")


def test_events_of_several_cpus_come_in_the_order_of_time(program: Path) -> None:
    with running(program, 3000, 4) as process, attached(process, definitions(program)[0]) as session:
        process.stdin.write(b"\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        times = [event["_time"] for event in session.events(TIMEOUT_S, limit=12000)]
        process.wait(TIMEOUT_S)
        session.detach()
        assert len(times) == 12000
        assert times == sorted(times)
        assert session.stats[0].clean


def test_what_finds_no_room_is_counted(program: Path) -> None:
    with running(program, 60_000, 2) as process, attached(process, definitions(program)[0]) as session:
        go(process)  # nobody reads meanwhile
        session.detach()
        seen = sum(1 for _ in session.events(0))
        (stats,) = session.stats
        assert (stats.hits, stats.lost) == (120_000, 120_000 - seen)
        assert 0 < seen < 120_000


def test_a_filter_is_the_kernels_and_its_refusal_is_told(program: Path) -> None:
    with running(program, 20) as process:
        with pytest.raises(DefinitionError):
            attached(process, definitions(program)[0], condition="nothing == 3")
        with attached(process, definitions(program)[0], condition="number >= 15 && low == -3") as session:
            go(process)
            session.detach()
            assert [event["number"] for event in session.events(0)] == [15, 16, 17, 18, 19]


def test_a_definitions_own_group_is_kept_and_a_foreign_event_is_left_alone(program: Path, tracefs: Path) -> None:
    with running(program, 1) as process:
        with attached(process, *definitions(program, "mine/")):
            assert [line.split()[0] for line in (tracefs / "uprobe_events").read_text().splitlines()] == [
                "p:mine/entry", "r:mine/back"
            ]  # fmt: skip
            with pytest.raises(UsageError, match="there is an event mine/entry already"):
                attached(process, *definitions(program, "mine/"))
            with attached(process, *definitions(program), definitions(program)[0]) as twice:
                assert len(twice.plan.sites) == 3
        assert left(tracefs) == []


def test_a_refusal_has_the_kernels_message(program: Path) -> None:
    with running(program, 1) as process, pytest.raises(DefinitionError, match="Invalid register name"):
        attached(process, f"p:entry {program}:{entry(program):#x} %nosuch")


def test_what_needs_a_program_is_refused_with_a_hint(program: Path) -> None:
    for command, *words in (
        ["trace", "work", "--if", "number > 3"], ["trace", "work", "--print", "number"], ["trace", "work", "--stack"],
        ["hist", "work", "number"], ["latency", "work"], ["hist", definitions(program)[0], "number"],
    ):  # fmt: skip
        done = kprobes(command, "--engine", "tracefs", *words, "--", str(program), "1", "1", status=1)
        assert "need BPF" in done.stderr
        assert "hint: " in done.stderr


def test_options_that_the_kernels_lines_have_no_room_for_are_refused(program: Path) -> None:
    for words in (["--stack"], ["--time", "wall"]):
        done = kprobes("trace", "work", "--format", "ftrace", *words, "--", str(program), "1", "1", status=2)
        assert f"{words[0]} doesn't go with --format ftrace" in done.stderr


class WithoutBpf(KernelEngine):
    """This machine's kernel, had it no BPF: it refuses whatever has programs."""

    def __init__(self) -> None:
        super().__init__()
        own = super().facts()
        self._without = SimpleNamespace(
            features=replace(own.features, ring_buffer=False), stamp=own.stamp, text=own.text, kallsyms=own.kallsyms
        )

    def facts(self) -> Any:
        return self._without

    def attach(self, plan: Plan) -> Any:
        if plan.programs:
            raise UnsupportedError("this kernel has no BPF")
        return super().attach(plan)


def test_where_there_is_no_bpf_tracefs_is_taken_by_itself(program: Path) -> None:
    probes = [definition(text) for text in definitions(program)]
    with running(program, 5) as process, attach_to(WithoutBpf(), *probes, within=Within(process.pid)) as session:
        assert {way for probe in session.plan.probes for way in probe.ways} == {Way.TRACEFS}
        assert any("no BPF" in note for note in session.plan.notes)
        go(process)
        session.detach()
        assert [event.layout.name for event in session.events(0)] == ["entry", "back"] * 5


def test_what_only_bpf_can_do_says_so_where_there_is_none(program: Path) -> None:
    @uprobe(f"{program}:work")
    def handler() -> None:
        log("hit")

    with running(program, 5) as process, WithoutBpf() as engine:
        with pytest.raises(UnsupportedError, match="no BPF"):
            attach_to(engine, handler, within=Within(process.pid))
        with pytest.raises(UnsupportedError, match="handlers need BPF"):
            attach_to(engine, replace(handler, way=Way.TRACEFS), within=Within(process.pid))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def tracing(program: Path, pid: int) -> Iterator[subprocess.Popen[str]]:
    """Run a command that traces the process *pid*, and wait until it does."""
    words = ["trace", "--engine", "tracefs", *definitions(program, "ours/"), definitions(program)[0], "-p", str(pid)]
    with subprocess.Popen([*KPROBES, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        try:
            yield command
        finally:
            command.kill()


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def armed(tracefs: Path) -> bool:
    enabled = [one / "set_event" for one in (tracefs / "instances").iterdir() if one.name.startswith("kprobes_py")]
    return any(len(one.read_text().splitlines()) == 3 for one in enabled)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_however_the_command_ends(program: Path, tracefs: Path, number: signal.Signals) -> None:
    with running(program, 1) as process, tracing(program, process.pid) as command:
        wait_for(lambda: armed(tracefs))
        command.send_signal(number)
        command.communicate(timeout=TIMEOUT_S)
        # 130: it was not yet done with attaching, though all events were enabled
        assert command.returncode in ((-number,) if number == signal.SIGKILL else (0, INTERRUPTED))
        assert left(tracefs) == []


@pytest.mark.parametrize("how", ["detach", "start"])
def test_what_a_killed_command_and_its_guard_left_is_removed_later(program: Path, tracefs: Path, how: str) -> None:
    with running(program, 1) as process, tracing(program, process.pid) as command:
        wait_for(lambda: armed(tracefs))
        (guard,) = children(command.pid)
        os.kill(guard, signal.SIGKILL)
        command.kill()
        command.communicate(timeout=TIMEOUT_S)
        assert len([name for name in present(tracefs) if "entry" in name or "back" in name]) == 3
        if how == "detach":
            assert kprobes("detach").stdout.count(" removed\n") == 3
            assert kprobes("detach").stdout == "tracefs: nothing of ours is there\n"
        else:
            attached(process, definitions(program)[0]).close()
        assert left(tracefs) == []
