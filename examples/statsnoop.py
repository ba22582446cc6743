"""Which files are looked at by stat, and whether they are there. Known from BCC as statsnoop."""

from kprobes import HashMap, String, comm, emit, errname, pid, tid, tracepoint

asked = HashMap("asked", key=int, value=String(128))


@tracepoint("syscalls:sys_enter_newfstatat", "syscalls:sys_enter_statx", "syscalls:sys_enter_newstat")
def asks(filename):
    asked[tid()] = filename.user_string(128)


@tracepoint("syscalls:sys_exit_newfstatat", "syscalls:sys_exit_statx", "syscalls:sys_exit_newstat")
def knows(ret):
    if tid() in asked:
        emit(pid=pid(), comm=comm(), error=errname(ret), path=asked.pop(tid()))
