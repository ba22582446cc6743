"""Where probes sit: instructions, raw addresses, modules, many functions at once, and programs of the guest."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from guest_harness import TIMEOUT_S, Guest, drained, hits, left_in, lossless

from kprobes import arg, emit, kallsyms_lookup_name, kprobe, kretprobe, pid, regs, retval, uprobe, uretprobe
from kprobes.arch.x86_64.decode import Flow, decode
from kprobes.engines.vm.kernels import cached_kernel
from kprobes.errors import SymbolNotFoundError, UnprobeableError, UsageError
from kprobes.model.probe import Probe
from kprobes.symbols.elf import ElfFile

FUNCTION = "__do_sys_getppid"
BEHIND_ENTRY = 9  # endbr64, and the call that ftrace patches
CALLS = 200


def straight_line(guest: Guest) -> list[int]:
    """Return the offsets of the instructions of FUNCTION that run one after the other, from behind its entry on."""
    address = kallsyms_lookup_name(FUNCTION, guest.target)
    kernel = cached_kernel(guest.kernel)
    assert kernel is not None
    with ElfFile(kernel.boot) as image:
        offset = image.offset_of(address)
        assert offset is not None
        code = image.read(offset, 64)
    found = []
    for instruction in decode(code, address):
        if instruction.flow not in (Flow.NEXT, Flow.CALL):
            return [one for one in found if one >= BEHIND_ENTRY]
        found.append(instruction.address - address)
    raise AssertionError(f"{FUNCTION} has no end")


def test_a_probe_on_each_instruction_is_hit_by_each_call(guest):
    places = [f"{FUNCTION}+{offset:#x}" for offset in straight_line(guest)]
    assert len(places) >= 5
    with guest.attach(*(Probe("kprobe", (place,)) for place in places)) as session:
        guest.call("getppid", CALLS)
        session.detach()
        assert [(one.name, one.hits) for one in session.stats] == [(place, CALLS) for place in places]
        assert {one.ways for one in session.stats} == {("kprobe",)}
        assert lossless(session)


def test_registers_at_an_instruction_are_those_of_that_moment(guest):
    last = straight_line(guest)[-1]  # pop rbx: the result is in rax by then

    @kprobe(f"{FUNCTION}+{last:#x}")
    def ending():
        emit(value=regs.ax, pid=pid())

    @kretprobe(FUNCTION)
    def ended():
        emit(value=retval, pid=pid())

    with guest.attach(ending, ended) as session:
        process = guest.call("getppid", CALLS)
        events = drained(session)
    own = Counter((event.name, event.value) for event in events if event.pid == process)
    assert sorted((name, count) for (name, _), count in own.items()) == [("ended", CALLS), ("ending", CALLS)]
    assert len({value for _, value in own}) == 1


def test_a_raw_address_is_probed_at_a_function_and_within_it(guest):
    address = kallsyms_lookup_name(FUNCTION, guest.target)
    inside = address + straight_line(guest)[1]
    with guest.attach(Probe("kprobe", (hex(address),)), Probe("kprobe", (hex(inside),))) as session:
        guest.call("getppid", CALLS)
        session.detach()
        assert [one.hits for one in session.stats] == [CALLS, CALLS]
        assert lossless(session)


def test_the_middle_of_an_instruction_is_refused(guest):
    offsets = straight_line(guest)
    middle = next(one + 1 for one, after in pairwise(offsets) if after - one >= 5)
    with pytest.raises(UnprobeableError, match="instruction"):
        guest.attach(Probe("kprobe", (f"{FUNCTION}+{middle:#x}",)))
    assert left_in(guest) == ""


def test_a_return_probe_within_a_function_is_refused(newest):
    with pytest.raises((UsageError, UnprobeableError), match=r"entry|begin|start"):
        newest.attach(Probe("kretprobe", (f"{FUNCTION}+{straight_line(newest)[2]:#x}",)))


def test_an_address_outside_the_code_is_refused(newest):
    data = kallsyms_lookup_name("jiffies", newest.target)
    for place in (hex(data), "0x1000", "0xffffffffff600000"):
        with pytest.raises((UnprobeableError, SymbolNotFoundError)):
            newest.attach(Probe("kprobe", (place,)))


@pytest.mark.parametrize("kernel", ["5.10", "6.1"])
def test_a_function_of_a_module_is_probed_by_its_name_and_its_modules(guest_of, kernel):
    guest = guest_of(kernel)  # whose channel to us is a module

    @kprobe("virtio_console:port_fops_splice_write")
    def wrote():
        emit(pid=pid())

    with guest.attach(wrote, Probe("kprobe", ("port_fops_splice_write",))) as session:
        for _ in range(10):
            assert guest.shell("true").status == 0
        events = drained(session)
        first, second = session.stats
        assert [site.module for site in session.plan.sites] == ["virtio_console"] * 2
    assert len(events) == first.hits >= 10
    assert second.hits >= 10


def test_a_function_of_no_module_of_that_name_is_refused(guest_of):
    with pytest.raises(SymbolNotFoundError):
        guest_of("6.1").attach(Probe("kprobe", ("virtio_console:vfs_read",)))


def test_hundreds_of_functions_are_counted_by_one_link(newest):
    with newest.attach(Probe("kprobe", ("tcp_*",))) as session:
        newest.call("connect", 20)
        session.detach()
        found = {one.name: one.hits for one in session.stats}
        assert {one.ways for one in session.stats} == {("kprobe.multi",)}
        assert lossless(session)
    assert len(found) > 200
    assert found["tcp_v4_connect"] == 20
    assert found["tcp_sendmsg"] == 20


@pytest.fixture
def program(guest: Guest) -> str:
    """Return the path of the program `calls`, the same here, where its symbols are read, and in the guest."""
    path = str(guest.programs / "calls")
    assert guest.machine.run(["true"], copy=[f"{path}:{path}"]).wait(TIMEOUT_S) == 0
    return path


def run(guest: Guest, program: str, *arguments: object) -> int:
    command = guest.machine.run([program, *map(str, arguments)])
    assert command.wait(TIMEOUT_S) == 0
    return command.pid


def test_a_function_of_a_program_in_the_guest_is_counted(guest, program):
    with guest.attach(Probe("uprobe", (f"{program}:sum_to",)), Probe("uretprobe", (f"{program}:sum_to",))) as session:
        run(guest, program, "sum", 9, 50)
        session.detach()
        assert [one.hits for one in session.stats] == [500, 500]


def test_calls_of_a_program_that_calls_itself_are_paired(guest, program):
    @uretprobe(f"{program}:sum_to")
    def summed():
        top = arg(1)
        total = yield
        emit(top=top, total=total, pid=pid())

    with guest.attach(summed) as session:
        process = run(guest, program, "sum", 9, 20)
        events = drained(session)
        assert session.stats[0].hits == 200
    assert [(event.top, event.total) for event in events] == [(n, n * (n + 1) // 2) for n in range(10)] * 20
    assert {event.pid for event in events} == {process}


def test_a_filter_in_a_program_of_the_guest_holds(newest):
    path = str(newest.programs / "calls")
    assert newest.machine.run(["true"], copy=[f"{path}:{path}"]).wait(TIMEOUT_S) == 0

    @uprobe(f"{path}:sum_to")
    def entered():
        if arg(1) == 4:
            emit(di=regs.di)

    with newest.attach(entered) as session:
        run(newest, path, "sum", 9, 30)
        events = drained(session)
        assert hits(session) == 300
    assert [event.di for event in events] == [4] * 30


def test_nothing_is_left_when_sessions_end(guest):
    assert left_in(guest) == ""
