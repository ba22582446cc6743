"""How much each program asks to write at a time, in bytes. Known from BCC as argdist."""

from kprobes import Histogram, comm, kprobe

asked = Histogram("bytes_to_write", by=str)
small = Histogram("small_writes", linear=(0, 256, 32))


@kprobe("vfs_write")
def write_size(file, count):
    asked.add(count, by=comm())
    if count < 256:
        small.add(count)
