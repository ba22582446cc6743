"""How long threads that could run wait for a CPU, in microseconds. Known from BCC as runqlat."""

from kprobes import HashMap, Histogram, now, tracepoint

ready = HashMap("ready", key=int, value=int)
usecs = Histogram("waited_usecs")


@tracepoint("sched:sched_wakeup")
def woken(pid):
    ready[pid] = now()


@tracepoint("sched:sched_wakeup_new")
def born(pid):
    ready[pid] = now()


@tracepoint("sched:sched_switch")
def switched(prev_pid, prev_state, next_pid):
    if prev_state == 0:  # it would rather go on
        ready[prev_pid] = now()
    since = ready.pop(next_pid, 0)
    if since:
        usecs.add((now() - since) // 1000)
