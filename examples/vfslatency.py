"""How long reads and writes take, in microseconds, per program. BCC has biolatency and ext4dist beside it."""

from kprobes import Histogram, comm, kretprobe, now

reads = Histogram("read_usecs", by=str)
writes = Histogram("write_usecs", by=str)


@kretprobe("vfs_read")
def read_latency(file, count):
    start = now()
    done = yield
    if done > 0:
        reads.add((now() - start) // 1000, by=comm())


@kretprobe("vfs_write")
def write_latency(file, count):
    start = now()
    done = yield
    if done > 0:
        writes.add((now() - start) // 1000, by=comm())
