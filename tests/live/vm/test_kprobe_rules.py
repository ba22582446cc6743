"""The rules of kprobes, asked of the kernels themselves: what our texts say of them is what they do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from errno import EBUSY, EEXIST, EILSEQ, EINVAL, ENOENT
from pathlib import Path

import pytest
from guest_harness import TIMEOUT_S, Guest, drained

from kprobes import emit, kprobe, kretprobe, now, regs
from kprobes.engines.vm.headers import open_headers
from kprobes.model.probe import Probe

DEBUG, TRACE = "/sys/kernel/debug/kprobes", "/sys/kernel/tracing"
MODULES = Path(__file__).parent / "modules"
CALLS = 100


@pytest.fixture(params=["5.10", "7.2"])
def guest(request: pytest.FixtureRequest, guest_of: Callable[[str], Guest]) -> Guest:
    """Return the guests of the oldest and the newest kernel."""
    return guest_of(request.param)


@pytest.fixture
def clean(guest: Guest) -> Iterator[Guest]:
    """Give a guest without probe events, and leave it so."""
    yield guest
    tidy(guest)


@pytest.fixture
def tidied(newest: Guest) -> Iterator[Guest]:
    """Give the newest guest without probe events, and leave it so."""
    yield newest
    tidy(newest)


def tidy(guest: Guest) -> None:
    guest.shell(f"echo 1 > {DEBUG}/enabled; echo 0 > {TRACE}/events/kprobes/enable")
    guest.shell(f"echo > {TRACE}/kprobe_events; echo > {TRACE}/trace")
    assert guest.shell(f"cat {TRACE}/kprobe_events").output == ""


def define(guest: Guest, *lines: str) -> None:
    for line in lines:
        assert guest.machine.tracefs().write("kprobe_events", f"{line}\n".encode()) == 0, line


def enable(guest: Guest, name: str, on: int = 1) -> None:
    assert guest.machine.tracefs().write(f"events/kprobes/{name}/enable", str(on).encode()) == 0


def profile(guest: Guest) -> dict[str, tuple[int, int]]:
    """Return hits and misses by event."""
    lines = (guest.machine.tracefs().read("kprobe_profile") or b"").decode().splitlines()  # a shell has hits of its own
    return {words[0]: (int(words[1]), int(words[2])) for words in map(str.split, lines)}


def flags(guest: Guest, place: str) -> set[str]:
    line = next(line for line in guest.shell(f"cat {DEBUG}/list").output.splitlines() if f" {place} " in line)
    return set(re.findall(r"\[([A-Z]+)\]", line))


def wait_for(guest: Guest, place: str, flag: str, there: bool) -> bool:
    """Wait for the optimizer, which comes a while after each change; return whether the flag is as wanted."""
    look = f"{'' if there else '! '}grep -q '{place} .*{flag}' {DEBUG}/list"
    guest.shell(f"for i in $(seq 600); do {look} && break; usleep 100000; done")
    return (flag in flags(guest, place)) == there


def test_on_a_function_that_begins_with_endbr64_0_and_4_are_its_entry(newest: Guest) -> None:
    place = "__do_sys_getppid"
    entry, behind = (Probe("kprobe", (where,), way="kprobe") for where in (place, f"{place}+4"))
    with newest.attach(entry, behind) as session:
        newest.call("getppid", CALLS)
        session.detach()
        assert [one.hits for one in session.stats] == [CALLS, CALLS]


def test_probes_of_one_place_run_one_after_the_other_the_newest_first(guest: Guest) -> None:
    def first():
        emit(which=1, time=now())

    def second():
        emit(which=2, time=now())

    def third():
        emit(which=3, time=now())

    probes = [kprobe("__do_sys_getppid", way="kprobe")(handler) for handler in (first, second, third)]
    with guest.attach(*probes) as session:
        guest.call("getppid", CALLS)
        events = sorted(drained(session), key=lambda event: event.time)
    assert [event.which for event in events] == [3, 2, 1] * CALLS


def test_a_hit_inside_of_a_handler_is_counted_as_missed(clean: Guest) -> None:
    # To read memory the second one's argument calls the function that the first one probes.
    define(clean, "p:inner copy_from_kernel_nofault", "p:outer __do_sys_getppid word=+0(%sp):x64")
    for name in ("inner", "outer"):
        enable(clean, name)
    clean.call("getppid", CALLS)
    counted = profile(clean)
    assert counted["outer"] == (CALLS, 0)
    assert counted["inner"][1] >= CALLS


def test_the_true_return_address_is_in_the_registers_of_a_return_handler(clean: Guest) -> None:
    @kretprobe("vfs_read", way="kprobe")
    def returned():
        emit(to=regs.ip)

    with clean.attach(returned) as session:
        clean.shell("cat /proc/version")
        callers = {session.symbol(event.to).partition("+")[0] for event in drained(session)}
    assert ("ksys_read" in callers) == (clean.kernel != "5.10")  # which gives the trampoline


def test_what_a_task_that_dies_leaves_is_free_again(clean: Guest) -> None:
    define(clean, "r12:left do_exit")  # a few may be on their way out at a time
    enable(clean, "left")
    clean.shell("for i in $(seq 40); do /bin/true; done")
    assert profile(clean)["left"] == (0, 0)


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12"])  # 7.2 has one long instruction there
def test_a_second_probe_in_its_bytes_takes_the_jump_away_until_it_is_next_armed(
    kernel: str, guest_of: Callable[[str], Guest]
) -> None:
    clean = guest_of(kernel)
    try:
        overlap(clean)
    finally:
        tidy(clean)


def overlap(clean: Guest) -> None:
    define(clean, "p:first vfs_read+9", "p:second vfs_read+11")
    enable(clean, "first")
    assert wait_for(clean, "vfs_read+0x9", "OPTIMIZED", there=True)
    enable(clean, "second")
    assert wait_for(clean, "vfs_read+0x9", "OPTIMIZED", there=False)
    before = profile(clean)
    clean.shell("cat /proc/version")
    after = profile(clean)
    hits = [after[name][0] - before[name][0] for name in ("first", "second")]
    assert min(hits) > 0
    enable(clean, "second", 0)
    enable(clean, "first", 0)
    assert flags(clean, "vfs_read+0x9") == {"DISABLED"}
    enable(clean, "first")
    assert wait_for(clean, "vfs_read+0x9", "OPTIMIZED", there=True)


def test_disarming_all_leaves_each_probes_own_state_alone(clean: Guest) -> None:
    define(clean, "p:on __do_sys_getppid", "p:off vfs_open+9")
    enable(clean, "on")
    clean.shell(f"echo 0 > {DEBUG}/enabled")
    before = profile(clean)["on"][0]
    clean.call("getppid", CALLS)
    assert profile(clean)["on"][0] == before
    clean.shell(f"echo 1 > {DEBUG}/enabled")
    assert "DISABLED" in flags(clean, "vfs_open+0x9")
    clean.call("getppid", CALLS)
    assert profile(clean)["on"][0] >= before + CALLS


def test_one_of_several_probes_of_a_place_can_be_disabled_and_the_last_takes_the_breakpoint(clean: Guest) -> None:
    define(clean, "p:one __do_sys_getppid", "p:other __do_sys_getppid")
    enable(clean, "one")
    enable(clean, "other")
    enable(clean, "one", 0)
    clean.call("getppid", CALLS)
    assert profile(clean) == {"one": (0, 0), "other": (CALLS, 0)}
    enable(clean, "other", 0)
    assert all("[DISABLED]" in line for line in clean.shell(f"cat {DEBUG}/list").output.splitlines())


def test_refusals_of_the_events_file_have_their_errno_and_leave_what_was_there(clean: Guest) -> None:
    files = clean.machine.tracefs()
    # A line that is refused ends the write; those before it stay.
    assert (
        files.write("kprobe_events", b"p:stays vfs_read\n# a comment\np:bad vfs_read+2\np:never vfs_open\n") == EILSEQ
    )
    assert re.findall(r"kprobes/(\w+)", clean.shell(f"cat {TRACE}/kprobe_events").output) == ["stays"]
    refused = {
        b"p:stays vfs_read other=%ax\n": EEXIST,
        b"-:never\n": ENOENT,
        b"p:x vfs_read %nosuch\n": EINVAL,
        b"p:x get_kprobe\n": EINVAL,
        b"r:x vfs_read+9\n": EINVAL,
    }
    assert {line: files.write("kprobe_events", line) for line in refused} == refused
    enable(clean, "stays")
    assert files.write("kprobe_events", b"-:stays\n") == EBUSY
    clean.shell(f"echo > {TRACE}/kprobe_events")
    assert "stays" in clean.shell(f"cat {TRACE}/kprobe_events").output


def test_a_line_is_at_most_4094_bytes(clean: Guest) -> None:
    files = clean.machine.tracefs()
    name = "p:long vfs_read "
    assert files.write("kprobe_events", (name + " " * (4094 - len(name)) + "\n").encode()) == 0
    assert files.write("kprobe_events", (name + " " * (4096 - len(name)) + "\n").encode()) == EINVAL


def test_hundreds_of_probes_of_one_place_are_all_hit(tidied: Guest) -> None:
    define(tidied, *(f"p:many{number} __do_sys_getppid" for number in range(200)))
    enable(tidied, "")
    before = profile(tidied)
    tidied.call("getppid", 10)
    after = profile(tidied)
    assert {after[name][0] - before[name][0] >= 10 for name in before} == {True}
    assert len(before) == 200


def test_the_function_tracer_and_a_probe_share_an_entry(tidied: Guest) -> None:
    define(tidied, "p:entry __do_sys_getppid")
    enable(tidied, "entry")
    before = profile(tidied)["entry"][0]
    tidied.shell(f"cd {TRACE}; echo __do_sys_getppid > set_ftrace_filter; echo function > current_tracer")
    process = tidied.call("getppid", CALLS)
    traced = (tidied.machine.tracefs().read("trace") or b"").decode()
    tidied.shell(f"cd {TRACE}; echo nop > current_tracer; echo > set_ftrace_filter")
    assert profile(tidied)["entry"][0] - before >= CALLS
    assert len(re.findall(rf"-{process} .*: __do_sys_getppid <-", traced)) == CALLS
    assert len(re.findall(rf"-{process} .*: entry: \(", traced)) == CALLS


@pytest.mark.parametrize("kernel", ["6.12"])
def test_a_probe_waits_for_its_module_and_is_gone_with_it(
    kernel: str, guest_of: Callable[[str], Guest], tmp_path: Path
) -> None:
    guest = guest_of(kernel)
    try:
        define(guest, "p:soon comes:comes_work number=%di:s32")
        for _ in range(2):
            built = built_module(kernel, tmp_path)
            inserted = guest.machine.run(["insmod", "/root/comes.ko"], copy=[str(built)])
            assert inserted.wait(TIMEOUT_S) == 0, inserted.error_output
            enable(guest, "soon")
            before = profile(guest)["soon"][0]
            guest.shell("for i in 1 2 3; do echo 1 > /sys/module/comes/parameters/call; done")
            assert profile(guest)["soon"][0] == before + 3
            (row,) = guest.command("list", "--armed", "comes:*").output.splitlines()
            assert re.fullmatch(r"[0-9a-f]{16}  k  comes_work\+0x\d \[comes\] \[FTRACE\]  ftrace", row)
            assert guest.shell("rmmod comes").status == 0
            assert "[GONE]" in guest.shell(f"cat {DEBUG}/list").output
            assert "[GONE]" in guest.command("list", "--armed").output
            enable(guest, "soon", 0)
    finally:
        guest.shell("rmmod comes")
        tidy(guest)


def built_module(kernel: str, directory: Path) -> Path:
    built = directory / "comes" / "comes.ko"
    if not built.exists():
        shutil.copytree(MODULES / "comes", built.parent)
        words = ["make", "-s", "-C", str(open_headers(kernel).build), f"M={built.parent}", "modules"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return built
