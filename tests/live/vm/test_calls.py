"""What a `yield` keeps belongs to its own call: under recursion, on other stacks, with many threads, and when there is
no room left for it."""

from __future__ import annotations

from collections import Counter

import pytest
from guest_harness import Guest, drained, lossless

from kprobes import HashMap, Session, arg, cast, comm, emit, kprobe, kretprobe, tid
from kprobes.model.probe import Probe

PAIRS = [("fentry", ("fentry", "fexit")), ("kprobe", ("kprobe", "kretprobe"))]
THREADS = 8
depth = HashMap("depth", key=int, value=int)


def missed(session: Session) -> int:
    """Return the misses of the only probe."""
    return session.stats[0].missed or 0


def recursion_argument(guest: Guest) -> int:
    """Return which argument of `ep_loop_check_proc` counts the levels; its place moved between kernels."""
    return {"5.10": 3, "6.1": 2, "6.12": 2, "7.2": 3}[guest.kernel]


@pytest.mark.parametrize(("way", "taken"), PAIRS, ids=["fentry", "kprobe"])
def test_each_level_of_a_function_that_calls_itself_keeps_its_own_values(guest, way, taken):
    number = recursion_argument(guest)

    @kretprobe("ep_loop_check_proc", way=way)
    def check():
        level = cast(arg(number), "int")
        outside = depth.get(tid(), 0)
        depth[tid()] = outside + 1
        yield
        inside = depth.get(tid(), 0)
        depth[tid()] = outside
        emit(level=level, outside=outside, inside=inside, tid=tid())

    with guest.attach(check) as session:
        guest.call("epoll", 4)
        events = drained(session)
        assert session.stats[0].ways == taken
        assert session.stats[0].hits == len(events)
        assert lossless(session)
    assert all(event.outside == event.level and event.inside == event.level + 1 for event in events)
    # The second of the chain checks one level, the third two, the last three: each level ends before the one above it.
    assert [event.level for event in events] == [level for top in range(1, 4) for level in range(top - 1, -1, -1)]


@pytest.mark.parametrize(("way", "taken"), PAIRS, ids=["fentry", "kprobe"])
def test_a_call_that_an_interrupt_nests_on_another_stack_is_told_apart(guest, way, taken):
    # Sending over the loopback delivers at once: the receiver's answer is sent within the sender's call.
    @kretprobe("__tcp_transmit_skb", way=way)
    def transmit(sk, skb):
        if comm() != "calls":
            return
        packet = skb
        outside = depth.get(tid(), 0)
        depth[tid()] = outside + 1
        error = yield
        emit(packet=packet, again=skb, outside=outside, inside=depth.get(tid(), 0), error=error)
        depth[tid()] = outside

    with guest.attach(transmit) as session:
        guest.call("connect", 25)
        events = drained(session)
        assert session.stats[0].ways == taken
        assert lossless(session)
    assert all(event.packet == event.again for event in events)
    assert all(event.inside == event.outside + 1 for event in events)
    assert Counter(event.outside for event in events)[1] > 0  # most of 50: the rest is left to a thread of the kernel
    assert {event.error for event in events} == {0}


@pytest.mark.parametrize(("way", "taken"), PAIRS, ids=["fentry", "kprobe"])
def test_threads_that_hammer_one_function_are_not_mixed(guest, way, taken):
    count = 500

    @kretprobe("shmem_file_llseek", way=way)
    def sought(file, offset):
        asked = offset
        who = tid()
        got = yield
        emit(asked=asked, got=got, before=who, after=tid(), same=offset, name=comm())

    with guest.attach(sought) as session:
        guest.call("seek", THREADS, count)
        everyone = drained(session)
        assert session.stats[0].ways == taken
        assert session.stats[0].hits == len(everyone)
        events = [event for event in everyone if event.name == "calls"]  # the guest's own programs seek too
        assert len(events) == THREADS * count or (guest.preemptible and way == "fentry")
        assert len(events) + missed(session) >= THREADS * count
        assert lossless(session) or len(events) < THREADS * count
    assert all(event.asked == event.got == event.same and event.before == event.after for event in events)
    by_thread = {}
    for event in events:
        by_thread.setdefault(event.before, []).append(event.asked)
    for asked in by_thread.values():
        expected = [asked[0] // 10_000_000_000 * 10_000_000_000 + i * 3 + 1 for i in range(count)]
        assert asked == expected or (asked == sorted(asked) and set(asked) < set(expected))


@pytest.mark.parametrize(("way", "taken"), PAIRS, ids=["fentry", "kprobe"])
def test_calls_that_sleep_at_the_same_time_keep_their_own_values(guest, way, taken):
    count = 20

    @kretprobe("vfs_read", way=way)
    def read(file):
        if comm() != "calls":
            return
        who = tid()
        inode = file.f_inode.i_ino
        got = yield
        if got >= 100:
            emit(who=who, after=tid(), inode=inode, got=got)

    with guest.attach(read) as session:
        guest.call("pipes", THREADS, count)
        events = drained(session)
        assert session.stats[0].ways == taken
        assert missed(session) >= THREADS * count - len(events)
        assert lossless(session) or (guest.preemptible and way == "fentry")
    assert all(event.who == event.after for event in events)
    by_pipe = {}
    for event in events:
        by_pipe.setdefault((event.who, event.inode), []).append(event.got)
    for got in by_pipe.values():
        expected = [got[0] // 100 * 100 + i for i in range(count)]
        assert got == expected or (missed(session) and set(got) < set(expected))


def test_calls_that_sleep_find_room_without_being_asked_and_their_misses_are_told(guest):
    count = 5
    with guest.attach(Probe("kretprobe", ("do_epoll_wait",), way="kprobe")) as session:
        guest.call("sleep", THREADS, 60, count)
        session.detach()
        (returned,) = session.stats
    assert (returned.hits, returned.missed) == (THREADS * count, 0)


def test_calls_beyond_maxactive_are_counted_as_missed(guest):
    count = 5
    probe = Probe("kretprobe", ("do_epoll_wait",), maxactive=1, way="kprobe")
    with guest.attach(Probe("kprobe", ("do_epoll_wait",)), probe) as session:
        guest.call("sleep", THREADS, 60, count)
        session.detach()
        entered, returned = session.stats
    assert entered.hits == THREADS * count
    assert returned.hits < THREADS * count
    assert returned.missed is not None
    assert returned.hits + returned.missed == THREADS * count


def test_a_pair_beyond_maxactive_gives_no_half_calls(guest):
    count = 5

    @kretprobe("do_epoll_wait", maxactive=2, way="kprobe")
    def slept():
        who = tid()
        got = yield
        emit(who=who, after=tid(), got=got)

    with guest.attach(slept) as session:
        guest.call("sleep", THREADS, 60, count)
        events = drained(session)
        stats = session.stats[0]
    assert 0 < len(events) < THREADS * count
    assert all(event.who == event.after and event.got == 0 for event in events)
    assert stats.missed is None or len(events) + stats.missed == THREADS * count


def test_a_probe_within_a_probed_call_and_its_own_pair_both_hold(newest):
    # do_sys_openat2 calls do_filp_open, which calls path_openat: three pairs, one within the other.
    @kretprobe("do_sys_openat2")
    def outer():
        if comm() != "calls":
            return
        depth[tid()] = 1
        yield
        emit(name="outer", level=depth.get(tid(), 0))

    @kretprobe("do_filp_open")
    def middle():
        if comm() != "calls":
            return
        before = depth.get(tid(), 0)
        depth[tid()] = before * 10 + 2
        yield
        emit(name="middle", level=depth.get(tid(), 0))
        depth[tid()] = before

    @kprobe("path_openat")
    def inner():
        if comm() == "calls":
            emit(name="inner", level=depth.get(tid(), 0))

    with newest.attach(outer, middle, inner) as session:
        newest.call("openat", "/etc/passwd", 100)
        events = [(event["name"], event.level) for event in drained(session)]
        assert lossless(session)
    assert events.count(("inner", 12)) >= 100
    assert events[-3:] == [("inner", 12), ("middle", 12), ("outer", 1)]
    assert {event for event in events if event[0] == "outer"} == {("outer", 1)}
