"""Claims about handlers that run in CPython."""

import bdb
import inspect
import sys
import traceback

import pytest

import kprobes
from kprobes import Count, HashMap, Histogram, comm, cpu, emit, kprobe, kretprobe, log, now, pid, regs, retval
from kprobes.errors import UsageError
from kprobes.model.builtins import BUILTINS
from kprobes.testing import Frame, run, struct, u64
from kprobes.testing.words import KNOWN

usecs = Histogram("usecs", by=str)
opens = Count("opens", by=str)
seen = HashMap("seen", key=(int, str), value=int)
LIMIT = 10


def larger(x, than=LIMIT):
    if x > than:
        return x
    return than


@kretprobe("vfs_read")
def read_latency(file, count):
    if comm != "postgres":
        return
    start = now()
    ret = yield
    if ret > 0:
        usecs.add((now() - start) // 1000, by=comm())
        emit(file.f_path.dentry.d_name.name.string(), count, ret, took=now - start, cpu=cpu)


@kprobe("f")
def plain(a, b):
    opens.add(by=comm)
    seen[pid, comm()] += 1
    log(f"{comm} {a:>4} {larger(b)} {kprobes.cpu}")


FILE = struct(f_path=struct(dentry=struct(d_name=struct(name="passwd"))))


def hit(**words):
    return Frame({"file": FILE, "count": 4096}, result=100, comm="postgres", now=(1_000, 5_500), **words)


def test_both_halves_run_with_what_each_has():
    done = run(read_latency, hit(cpu=3))
    (event,) = done.events
    assert event.fields == {
        "file.f_path.dentry.d_name.name": "passwd", "count": 4096, "ret": 100, "took": 4500, "cpu": 3
    }  # fmt: skip
    assert done[usecs]["postgres"].total == 1
    assert done.faults == 0


def test_a_handler_that_leaves_early_has_no_second_half():
    done = run(read_latency, Frame({"file": FILE, "count": 1}, comm="bash"))
    assert done.events == []
    assert done[usecs] == {}


def test_maps_are_shared_by_frames_and_read_as_in_a_session():
    done = run(plain, Frame({"a": 1, "b": 2}), Frame({"a": 3, "b": 40}, comm="sh", cpu=7))
    assert done[opens] == {"python": 1, "sh": 1}
    assert done[seen] == {(1000, "python"): 1, (1000, "sh"): 1}
    assert done.lines == ["python    1 10 0", "sh    3 40 7"]


@kretprobe("f")
def at_return(a):
    total = 0
    for i in range(3):
        total += i
    while a is not None:
        a = a.next
    emit(retval, total=total, ratio=retval // a.zero, di=regs.di)


def test_without_a_yield_all_of_it_runs_at_the_return():
    chain = struct(next=struct(next=None))
    done = run(at_return, Frame({"a": chain}, result=u64(8), after={"di": 5}))
    assert done.events[0].fields == {"retval": 8, "total": 3, "ratio": 0, "di": 5}
    assert done.faults == 1


@kprobe("f")
def endless(a):
    while a == a.next:
        a = a.next
    emit(a.id)


def test_loops_end_as_they_do_in_a_compiled_handler():
    ring = struct(id=7)
    object.__getattribute__(ring, "_fields")["next"] = ring
    done = run(endless, Frame({"a": ring}))
    assert done.events[0].fields == {"a.id": 7}
    assert done.faults == 1


@kprobe("f")
def changing(a):
    if a:
        regs.di = 5
        kprobes.skip()


def test_what_the_probed_program_would_lose_is_noted():
    assert run(changing, Frame({"a": 1})).written == [("register", "di", 5), ("skip", "", 0)]
    assert run(changing, Frame({"a": 0})).written == []


@kprobe("f")
def wrapping(a, b):
    emit(a + 1, b - a, int(b), c=min(a, b), d=ntohs_of(b), e=hex(b), f=(a if b else b))


def ntohs_of(x):
    return kprobes.ntohs(x)


def test_integers_have_the_widths_of_c():
    done = run(wrapping, Frame({"a": (1 << 63) - 1, "b": u64(1)}))
    assert list(done.events[0].fields.values())[:5] == [-(1 << 63), (1 << 64) + 2 - (1 << 63), 1, 1, 0x0100]
    assert done.faults == 0


def test_a_frame_that_lacks_something_says_what():
    with pytest.raises(UsageError, match="no argument 'count'") as caught:
        run(read_latency, Frame({"file": FILE}))
    assert caught.value.hint == "it has file"
    with pytest.raises(UsageError, match="no 'f_path'"):
        run(read_latency, Frame({"file": struct(), "count": 1}, result=1, comm="postgres"))
    with pytest.raises(UsageError, match="a frame has no 'com'") as caught:
        Frame(com="x")
    assert caught.value.hint == "did you mean comm?"
    with pytest.raises(UsageError, match="no 'retval'") as caught:
        Frame(retval=1)
    assert caught.value.hint == "give it as result="


class Stops(bdb.Bdb):
    """A debugger that notes where it stops."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def user_line(self, frame):
        self.seen.append((frame.f_lineno, dict(frame.f_locals)))
        self.set_continue()


def test_a_debugger_stops_in_the_handler_and_sees_its_locals():
    lines, first = inspect.getsourcelines(sys.modules[__name__])
    wanted = next(number for number, line in enumerate(lines, first or 1) if "if ret > 0" in line)
    debugger = Stops()
    assert debugger.set_break(__file__, wanted) is None
    debugger.runcall(run, read_latency, hit())
    stops = [names for number, names in debugger.seen if number == wanted]
    assert [names["ret"] for names in stops] == [100]
    assert stops[0]["start"] == 1_000


def test_the_lines_that_run_are_those_of_the_handler():
    ran = set()

    def trace(frame, event, argument):
        if frame.f_code.co_filename == __file__ and frame.f_code.co_name == "read_latency" and event == "line":
            ran.add(frame.f_lineno - read_latency.handler.line)
        return trace

    sys.settrace(trace)
    try:
        run(read_latency, Frame({"file": FILE, "count": 1}, comm="bash"))
    finally:
        sys.settrace(None)
    assert ran == {1, 2}


def test_an_error_in_the_handler_shows_its_line():
    with pytest.raises(AttributeError) as caught:
        run(read_latency, Frame({"file": 5, "count": 1}, result=1, comm="postgres"))
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert last.filename == __file__
    assert "emit(file.f_path" in last.line


def test_each_builtin_is_known():
    assert set(BUILTINS) == KNOWN


def test_variables_addresses_and_all_arguments_come_from_the_frame():
    @kprobe("f")
    def everything(a, b):
        emit(*kprobes.args(), jiffies=kprobes.var("jiffies"), there=kprobes.address_of("start") + kprobes.sizeof("u32"))

    frame = Frame({"a": 1, "b": 2}, variables={"jiffies": 7}, addresses={"start": 0x1000})
    (event,) = run(everything, frame).events
    assert event.fields == {"a": 1, "b": 2, "jiffies": 7, "there": 0x1004}
    with pytest.raises(UsageError, match="the frame gives no 'jiffies'"):
        run(everything, Frame({"a": 1, "b": 2}))
