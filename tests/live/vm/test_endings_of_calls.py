"""How handlers and calls end in a kernel: asserts that fail, `finally`, a yield in a branch, calls still inside."""

from __future__ import annotations

from itertools import islice

from kprobes import Count, Setting, attach, comm, emit, kprobe, kretprobe, tid

SIZE = 1234
entered, returned = Count("entered"), Count("returned")


@kretprobe("vfs_write")
def writes(file, buf, count):
    if comm() == "calls" and count == SIZE:
        assert tid() == 0, "no thread has that number"
    if comm() == "calls":
        wanted = count
        try:
            done = yield
            assert done == wanted
            emit(done)
        finally:
            returned.add()
    else:
        entered.add()


@kretprobe("__x64_sys_epoll_wait")
def sleeps():
    if comm() == "calls":
        entered.add()
        yield
        returned.add()


def test_asserts_are_counted_by_line_and_end_the_handler(guest):
    with guest.attach(writes) as session:
        guest.call("write", SIZE, 50)
        guest.call("write", SIZE + 1, 20)
        session.detach()
        assert session[returned] == 20
        assert [event.done for event in session.events(0)] == [SIZE + 1] * 20
        failed = {one.assertion.message: one.failed for one in session.asserts}
    assert failed == {"no thread has that number": 50, "": 0}
    assert session.asserts[0].assertion.text == "tid() == 0"
    assert session.asserts[0].failed == 50


def test_a_call_that_is_inside_at_the_detach_is_unmatched(guest):
    with guest.attach(sleeps) as session:
        command = guest.start("calls", "sleep", 3, 10_000_000, 1)
        command.write(b"\n")
        inside = (count == 3 for count in session.every(0.1, entered))
        assert any(islice(inside, 3000))
        session.detach()
        assert [stats.unmatched for stats in session.stats] == [3]
        command.kill()


least = Setting("least", SIZE + 1)


@kprobe("vfs_write")
def large(count):
    if comm() == "calls" and count >= least:
        entered.add()


def test_settings_are_those_of_the_attach(newest):
    for settings, expected in ((None, 0), ({"least": SIZE}, 30), ({"least": SIZE + 1}, 0)):
        with attach(large, to=newest.target, settings=settings) as session:
            newest.call("write", SIZE, 30)
            assert session[entered] == expected
            assert session.settings == {"least": (settings or {}).get("least", SIZE + 1)}
