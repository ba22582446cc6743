"""Reads that take longer than a limit, with the file's name. Known from BCC as fileslower."""

from kprobes import Setting, comm, emit, kretprobe, now, pid

limit_us = Setting("limit_us", 100, "show reads that take longer")


@kretprobe("vfs_read")
def slow_read(file, count):
    start = now()
    done = yield
    took = (now() - start) // 1000
    if took > limit_us:
        name = file.f_path.dentry.d_name.name.string(32)
        emit(pid=pid(), comm=comm(), us=took, bytes=done, file=name)
