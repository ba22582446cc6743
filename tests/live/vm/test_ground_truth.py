"""Counts against programs that make an exact number of calls, on every kernel and by every way in."""

from __future__ import annotations

from collections import Counter

import pytest
from guest_harness import Guest, complete, drained, finish, hits, lossless

from kprobes import Count, Histogram, arg, comm, emit, kprobe, kretprobe, pid, regs, retval, tracepoint
from kprobes.errors import VerifierError
from kprobes.model.probe import Probe

NAME = "/no/such/file/of-the-ground-truth"
SIZE = 1234
calls = Count("calls", by=str)
sizes = Histogram("sizes", by=int, linear=(1000, 2000, 1))


def has(guest: Guest, way: str) -> bool:
    """Return whether the guest's kernel has a way in; which ones have kprobe.multi is known."""
    features = guest.machine.facts().features
    assert features.kprobe
    assert features.fentry
    assert bool(features.kprobe_multi) == (guest.kernel not in ("5.10", "6.1"))
    return way != "kprobe.multi" or bool(features.kprobe_multi)


def ways(guest: Guest, *names: str) -> list[str]:
    return [name for name in names if has(guest, name)]


def test_a_bare_probe_counts_each_call_once(guest):
    with guest.attach(Probe("kprobe", ("__do_sys_getppid",))) as session:
        guest.call("getppid", 1000)
        assert hits(session) == 1000
        assert lossless(session)


def test_every_way_in_counts_the_calls_of_one_program(guest):
    for way in ways(guest, "fentry", "kprobe.multi", "kprobe"):

        @kprobe("vfs_write", way=way)
        def written(file, buf, count):
            if comm() == "calls" and count == SIZE:
                calls.add(by=comm())

        with guest.attach(written) as session:
            guest.call("write", SIZE, 777)
            session.detach()
            assert complete(guest, session, session[calls]["calls"], 777)
            assert set(session[calls]) == {"calls"}
            assert session.stats[0].ways == (way,)
            assert session.stats[0].hits >= session[calls]["calls"]


def test_every_way_in_counts_the_returns_of_one_program(guest):
    for way, taken in (("fentry", "fexit"), ("kprobe.multi", "kretprobe.multi"), ("kprobe", "kretprobe")):
        if not has(guest, way):
            continue

        @kretprobe("vfs_write", way=way)
        def written():
            if comm() == "calls" and retval == SIZE:
                calls.add(by=comm())

        with guest.attach(written) as session:
            guest.call("write", SIZE, 321)
            session.detach()
            assert complete(guest, session, session[calls]["calls"], 321)
            assert set(session[calls]) == {"calls"}
            assert session.stats[0].ways == (taken,)


def test_entry_and_return_are_paired_by_either_pair_of_ways(guest):
    for way, taken in (("fentry", ("fentry", "fexit")), ("kprobe", ("kprobe", "kretprobe"))):

        @kretprobe("vfs_write", way=way)
        def written(file, buf, count):
            if comm() != "calls":
                return
            asked = count
            done = yield
            emit(pid=pid(), asked=asked, done=done, same=count)

        with guest.attach(written) as session:
            process = guest.call("write", SIZE, 500)
            events = [event for event in drained(session) if event.asked == SIZE]
            assert session.stats[0].ways == taken
            assert complete(guest, session, len(events), 500)
        assert {(event.pid, event.done, event.same) for event in events} == {(process, SIZE, SIZE)}


def test_a_string_read_at_the_entry_is_there_at_the_return(guest):
    @kretprobe("do_sys_openat2")
    def opened(dfd, filename, how):
        path = filename.string(64)
        flags = how.flags
        got = yield
        if path == NAME:
            emit(path=path, got=got, flags=flags, comm=comm())

    with guest.attach(opened) as session:
        guest.call("openat", NAME, 300)
        events = drained(session)
        assert lossless(session)
    assert [(event.path, event.got, event.comm) for event in events] == [(NAME, -2, "calls")] * 300


def test_a_way_that_the_kernel_refuses_is_left_for_the_next_unless_it_is_forced(guest_of):
    # fentry of 5.10 takes no function that is given a structure, here a kuid_t.
    guest = guest_of("5.10")

    def shown(targ):
        emit(namespace=targ)

    with pytest.raises(VerifierError, match="from_kuid_munged arg1 type STRUCT is unsupported"):
        guest.attach(kprobe("from_kuid_munged", way="fentry")(shown))
    with guest.attach(kprobe("from_kuid_munged")(shown)) as session:
        assert session.stats[0].ways == ("kprobe",)


def test_a_pointer_to_a_number_is_read_through_fentry_on_every_kernel(guest):
    # A program of 5.10 may not load one itself.
    @kprobe("vfs_write", way="fentry")
    def written(file, buf, count, pos):
        if comm() == "calls" and pos != 0:
            emit(count=count, pos=pos, at=pos[0])

    with guest.attach(written) as session:
        guest.call("write", SIZE, 50)
        events = [event for event in drained(session) if event["count"] == SIZE]
        assert session.stats[0].ways == ("fentry",)
        assert complete(guest, session, len(events), 50)
    assert {event.pos >> 47 for event in events} == {0x1FFFF}


def test_two_probes_of_one_function_both_see_every_call(guest):
    @kprobe("do_sys_openat2")
    def entered(dfd, filename):
        if filename.string(64) == NAME:
            emit(name="entered")

    @kretprobe("do_sys_openat2")
    def left(dfd, filename):
        path = filename.string(64)
        error = yield
        if path == NAME:
            emit(name="left", error=error)

    with guest.attach(entered, left) as session:
        guest.call("openat", NAME, 200)
        seen = Counter(event["name"] for event in drained(session))
    assert seen == {"entered": 200, "left": 200}


def test_a_filter_on_the_process_lets_only_its_calls_through(guest):
    chosen, other = guest.start("calls", "getppid", 400), guest.start("calls", "getppid", 100)
    wanted = chosen.pid

    @kprobe("__do_sys_getppid")
    def called():
        if pid() == wanted:
            calls.add(by=comm())

    with guest.attach(called) as session:
        finish(other)
        finish(chosen)
        assert hits(session) == 500
        assert session[calls] == {"calls": 400}


def test_system_call_tracepoints_count_and_carry_the_arguments(guest):
    @tracepoint("syscalls:sys_enter_write")
    def entered(fd, count):
        if comm() == "calls":
            sizes.add(count, by=0)

    @tracepoint("syscalls:sys_exit_write")
    def left(ret):
        if comm() == "calls":
            sizes.add(ret, by=1)

    with guest.attach(entered, left) as session:
        guest.call("write", SIZE, 250)
        session.detach()
        for found in session[sizes].values():
            assert [row for row in found.rows if row[2]] == [(SIZE, SIZE + 1, 250)]
        assert set(session[sizes]) == {0, 1}
        assert lossless(session)


def test_arguments_are_the_same_by_prototype_by_number_and_by_register(guest):
    @kprobe("vfs_write")
    def written(file, buf, count):
        if comm() == "calls":
            emit(file=file, third=arg(3), by_name=count, register=regs.dx, first=arg(1), di=regs.rdi)

    with guest.attach(written) as session:
        guest.call("write", SIZE, 20)
        events = [event for event in drained(session) if event.by_name == SIZE]
        assert session.stats[0].ways == ("kprobe",)
    assert len(events) == 20
    for event in events:
        assert event.third == event.register == SIZE
        assert event.file == event.first == event.di
        assert event.file >> 32 >= 0xFFFF8880


def test_many_events_of_one_program_arrive_in_order(guest):
    number = Count("number")

    @kprobe("shmem_file_llseek")
    def sought(file, offset):
        if comm() == "calls":
            number.add()
            emit(offset=offset)

    with guest.attach(sought) as session:
        guest.call("seek", 1, 20000)
        offsets = [event.offset for event in drained(session)]
        assert session[number] == 20000
        assert sum(one.lost for one in session.stats) == 20000 - len(offsets)
    assert offsets == sorted(offsets)
    assert set(offsets) <= {10_000_000_000 + i * 3 + 1 for i in range(20000)}


@pytest.mark.parametrize("way", ["", "kprobe"])
def test_a_glob_counts_each_of_its_functions(newest, way):
    program = newest.start("calls", "seek", 2, 100)  # who copies it to the guest seeks too
    with newest.attach(Probe("kprobe", ("vfs_writ*", "shmem_file_llsee[k]"), way=way)) as session:
        finish(program)
        session.detach()
        found = {one.name: one.hits for one in session.stats}
        assert lossless(session)
    assert found["shmem_file_llseek"] == 200
    assert found["vfs_write"] > 0
    assert "vfs_writev" in found
