"""How long threads stay on a CPU before they leave it, in microseconds. Known from BCC as cpudist."""

from kprobes import HashMap, Histogram, now, tracepoint

since = HashMap("since", key=int, value=int)
usecs = Histogram("ran_usecs", by=str)


@tracepoint("sched:sched_switch")
def switched(prev_pid, prev_comm, next_pid):
    began = since.pop(prev_pid, 0)
    if began:
        usecs.add((now() - began) // 1000, by=prev_comm)
    if next_pid:
        since[next_pid] = now()
