"""Which files are opened, by whom, and with what result. Known from BCC as opensnoop."""

from kprobes import comm, emit, kretprobe, pid


@kretprobe("do_sys_openat2")
def opened(dfd, filename, how):
    path = filename.string(128)
    fd = yield
    emit(pid=pid(), comm=comm(), fd=fd, flags=hex(how.flags), path=path)
