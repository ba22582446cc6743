"""Which programs end, how, and after how long. Known from BCC as exitsnoop."""

from kprobes import comm, current, emit, now, pid, tid, tracepoint


@tracepoint("sched:sched_process_exit")
def ended():
    if pid() == tid():
        code = current.exit_code
        age = (now() - current.start_time) // 1_000_000
        emit(pid=pid(), parent=current.real_parent.tgid, comm=comm(), ms=age, status=code >> 8, signal=code & 127)
