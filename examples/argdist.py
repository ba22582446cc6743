"""How much each program asks to read and to write at a time, in bytes. Known from BCC as argdist."""

from kprobes import Histogram, comm, kprobe

asked = Histogram("bytes_to_write", by=str)
small = Histogram("small_reads", linear=(0, 1024, 128))


@kprobe("vfs_write")
def write_size(file, count):
    asked.add(count, by=comm())


@kprobe("vfs_read")
def read_size(file, count):
    if count < 1024:
        small.add(count)
