"""How often each function of the virtual file system is called, per program. Known from BCC as funccount."""

from kprobes import Count, comm, kprobe

calls = Count("calls", by=str)


@kprobe("vfs_*")
def called():
    calls.add(by=comm())
