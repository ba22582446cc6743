"""Who a thread is: by the host's numbers and by those of its own pid namespace."""

from __future__ import annotations

from guest_harness import drained, finish

from kprobes import comm, emit, host_pid, host_tid, kprobe, ns_pid, ns_tid, pid, tid

SIZE = 77


@kprobe("vfs_write")
def who(count):
    if comm == "namespaced" and count == SIZE:
        emit(pid, tid, ns_pid, ns_tid, host_pid, host_tid)


def test_a_process_of_a_namespace_has_numbers_of_the_host_and_of_its_own(guest):
    with guest.attach(who) as session:
        parent = finish(guest.start("namespaced"))
        (event,) = drained(session)
        assert session.stats[0].faults == 0
    assert (event.ns_pid, event.ns_tid) == (1, 2)
    assert event.pid == event.host_pid > parent
    assert event.tid == event.host_tid > event.pid
