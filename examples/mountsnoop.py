"""What is mounted where, and what comes of it. Known from BCC as mountsnoop."""

from kprobes import comm, emit, errname, kretprobe, pid


@kretprobe("path_mount")
def mounted(dev_name, path, type_page, flags):
    error = yield
    where = path.dentry.d_name.name.string()
    emit(pid=pid(), comm=comm(), what=dev_name.string(), where=where, kind=type_page.string(), error=errname(error))
