"""How long each system call spends in the kernel, in total. A HashMap carries the start from one hit to the next."""

from kprobes import Count, HashMap, now, tid, tracepoint

entered = HashMap("entered", key=int, value=int)
nanoseconds = Count("nanoseconds", by=int)


@tracepoint("raw_syscalls:sys_enter")
def enter(id):
    entered[tid()] = now()


@tracepoint("raw_syscalls:sys_exit")
def leave(id):
    started = entered.get(tid(), 0)
    if started:
        nanoseconds.add(now() - started, by=id)
        del entered[tid()]
