"""Aggregates that fold what comes, an array, and an assertion that fails."""

from kprobes import Array, Avg, Max, Min, comm, kprobe

least = Min("least", by=int)
most = Max("most", by=(int, str))
mean = Avg("mean", by=int)
lowest = Min("lowest")
never = Max("never")
middle = Avg("middle")
slots = Array("slots", 4)


@kprobe("ksys_lseek")
def gathered(fd, offset, whence):
    if comm() != "calls":
        return
    least.add(offset - 7, by=offset % 3)
    most.add(offset, by=(offset % 2, comm()))
    mean.add(offset, by=offset % 3)
    lowest.add(-offset)
    middle.add(offset)
    if offset < 0:
        never.add(offset)
    slots[offset & 7] += 2
    slots[0] = slots[offset & 7]
    assert offset & 1, "only odd places"
    slots[1] = 9
