"""Types and variables of four kernels in handlers: annotations, casts, arrays, globals, per-CPU variables."""

from __future__ import annotations

import enum

from guest_harness import Guest, drained

from kprobes import (
    Count,
    HashMap,
    address_of,
    args,
    bits,
    cast,
    char,
    comm,
    container_of,
    cpu,
    cstr,
    current,
    emit,
    flags,
    kprobe,
    offsetof,
    percpu,
    sizeof,
    struct,
    task,
    tid,
    u8,
    u16,
    u64,
    var,
)


class Open(enum.IntFlag):
    WRONLY = 1
    CREAT = 0o100
    TRUNC = 0o1000
    LARGEFILE = 0o100000


@struct
class How:
    flags: u64
    mode: u64


@struct
class Opening:
    known: bool
    flags: Open
    name: char[16]


opens = Count("opens", by=Opening)
last = HashMap("last", key=Open, value=How)


@kprobe("do_sys_openat2")
def opened(filename: cstr, how: How):
    if comm() == "calls":
        emit(*args)
        emit(filename, mode=flags(how.flags, Open), plain=how.cast("struct open_how").flags)
        opens.add(by=Opening(tid() > 0, how.flags, filename.string(16)))
        last[Open(how.flags)] = how[0]
        emit(again=last[Open(how.flags)].flags == how.flags)


@struct
class Inet:
    family: u16
    port: u16
    address: u8[4]
    low: bits(u8, 3)
    zero: u8[7]


@kprobe("__sys_connect")
def connecting(uservaddr: Inet):
    if comm() == "calls":
        last = uservaddr.family + 1
        emit(
            address=uservaddr.address[0],
            last=uservaddr.address[last],
            beyond=uservaddr.address[last + 1],
            low=uservaddr.low,
            whole=uservaddr[0].address,
            family=cast(uservaddr, "struct sockaddr __user *").sa_family,
        )


@kprobe("do_sys_openat2")
def around():
    if comm() == "calls":
        inside = current.signal.rlim[1].cast("char *")
        by_member = container_of(inside, "struct signal_struct", "rlim[1]")
        emit(
            same=by_member == task().signal,
            size=sizeof("struct rlimit"),
            apart=offsetof("struct signal_struct", "rlim[3]") - offsetof("struct signal_struct", "rlim[1]"),
            files=current.signal.rlim[7 + cpu() - cpu()].rlim_cur,
            beyond=current.signal.rlim[16 + cpu()].rlim_cur,
            again=current.sched_reset_on_fork,
            links=current.mm.exe_file.f_inode.i_nlink,
            op=current.mm.exe_file.f_op,
        )


@kprobe("do_sys_openat2")
def globals_():
    if comm() == "calls":
        emit(
            jiffies=var("jiffies"),
            first=var("init_task").comm,
            state=var("system_state"),
            cpus=var("nr_cpu_ids", "u32"),
            is_first=address_of("init_task") == task().group_leader,
            running=percpu("runqueues").curr.pid == tid(),
            here=percpu("runqueues").cpu == cpu(),
            there=percpu("runqueues", cpu=1).cpu,
            nowhere=percpu("runqueues", cpu=cpu() + 64).cpu,
        )


def test_memory_of_a_program_is_read_by_a_struct_class(guest: Guest) -> None:
    with guest.attach(connecting) as session:
        guest.call("connect", 3)
        events = drained(session)
        assert session.stats[0].faults == 3
    bytes_ = {f"whole[{n}]": byte for n, byte in enumerate((127, 0, 0, 1))}
    assert {tuple(one.fields.items()) for one in events} == {
        tuple({"address": 127, "last": 1, "beyond": 0, "low": 0, **bytes_, "family": 2}.items())
    }
    assert len(events) == 3


def test_types_and_variables_are_those_of_the_kernel(guest: Guest) -> None:
    with guest.attach(opened, around, globals_) as session:
        guest.call("openat", "/no/such/file", 3)
        events = drained(session)
        faults = [one.faults for one in session.stats]
        hits = [one.hits for one in session.stats]
        by_opening = {key: count for key, count in session[opens].items() if key.name == "/no/such/file"}
        kept = session[last]
    everything = [one for one in events if "dfd" in one.fields]
    assert [one.filename for one in everything] == ["/no/such/file"] * 3
    assert {type(one.how).__name__ for one in everything} == {"Address"}
    named = [one for one in events if "mode" in one.fields]
    assert {one.filename for one in named} == {"/no/such/file"}
    assert all(int(one.mode) == one.plain for one in named)
    assert {str(one.mode) for one in named} <= {"0x0", "LARGEFILE"}
    assert sum(by_opening.values()) == 3
    assert all(key.known and str(key.flags) in ("0x0", "LARGEFILE") for key in by_opening)
    assert kept
    assert all(int(key) == how.flags & 0xFFFF_FFFF for key, how in kept.items())
    assert all(one.again for one in events if "again" in one.fields and one.name == "opened")
    places = [one for one in events if one.name == "around"]
    assert {(one.same, one.size, one.apart, one.beyond, one.again) for one in places} == {(True, 16, 32, 0, 0)}
    assert all(one.files >= 256 and one.links >= 1 for one in places)
    globals_seen = [one for one in events if one.name == "globals_"]
    assert len(places) == len(globals_seen) == 3
    told = {
        (one.first, str(one.state), one.cpus, one.is_first, one.running, one.here, one.there) for one in globals_seen
    }
    assert told == {("swapper/0", "SYSTEM_RUNNING", 2, False, True, True, 1)}
    assert all(one.jiffies > 1 << 31 for one in globals_seen)
    assert hits[0] >= 3
    assert faults == [0, 3, 3]  # what lies beyond an array, and a CPU that isn't there
