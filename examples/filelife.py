"""Files that live only for a short while: how long, and who removed them. Known from BCC as filelife."""

from kprobes import HashMap, comm, emit, kprobe, now

born = HashMap("born", key=int, value=int, lru=True)


@kprobe("security_inode_create")
def created(dentry):
    born[dentry] = now()


@kprobe("vfs_unlink")
def removed(dentry):
    since = born.pop(dentry, 0)
    if since:
        emit(comm=comm(), ms=(now() - since) // 1_000_000, file=dentry.d_name.name.string())
