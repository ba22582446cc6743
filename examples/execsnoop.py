"""Which programs start. Known from BCC as execsnoop."""

from kprobes import comm, emit, pid, tracepoint, uid


@tracepoint("sched:sched_process_exec")
def started(filename, old_pid):
    emit(pid=pid(), uid=uid(), comm=comm(), filename=filename)
