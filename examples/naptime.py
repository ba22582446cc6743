"""Who sleeps on purpose, and for how long. Known from bpftrace as naptime."""

from kprobes import comm, current, emit, kprobe, pid


@kprobe("hrtimer_nanosleep")
def naps(rqtp):
    emit(pid=pid(), comm=comm(), parent=current.real_parent.comm, ms=rqtp // 1_000_000)
