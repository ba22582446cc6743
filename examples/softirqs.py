"""Time spent in soft interrupts, by kind. Known from BCC as softirqs."""

from kprobes import HashMap, Histogram, cpu, now, tracepoint

KINDS = ("hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu")
began = HashMap("began", key=int, value=int)
usecs = Histogram("usecs", by=int)


@tracepoint("irq:softirq_entry")
def enters():
    began[cpu()] = now()


@tracepoint("irq:softirq_exit")
def leaves(vec):
    since = began.pop(cpu(), 0)
    if since:
        usecs.add((now() - since) // 1000, by=vec)


def report(session):
    """Print a line for each kind that occurred."""
    for kind, times in sorted(session[usecs].items()):
        print(f"{KINDS[kind]:<8} {times.total:>8} times, mean {times.mean:.0f} us")
