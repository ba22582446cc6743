"""How many reads, writes, opens, creations and syncs there are. Known from BCC as vfsstat."""

from kprobes import Count, Symbol, function, kprobe

calls = Count("calls", by=Symbol)


@kprobe("vfs_read", "vfs_write", "vfs_open", "vfs_create", "vfs_fsync_range")
def called():
    calls.add(by=function())
