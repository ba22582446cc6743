"""Reads that take longer than a limit, with the file's name. Known from BCC as fileslower."""

from kprobes import comm, emit, kretprobe, now, pid

LIMIT_NS = 100_000


@kretprobe("vfs_read")
def slow_read(file, count):
    start = now()
    done = yield
    took = now() - start
    if took > LIMIT_NS:
        name = file.f_path.dentry.d_name.name.string(32)
        emit(pid=pid(), comm=comm(), us=took // 1000, bytes=done, file=name)
