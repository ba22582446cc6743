"""Which code paths end in a write, most frequent last. Known from BCC as stackcount."""

from kprobes import Count, Stack, kprobe, stack

paths = Count("paths", by=Stack)


@kprobe("vfs_write")
def written():
    paths.add(by=stack())


def report(session):
    """Print the five most frequent stacks."""
    for stack_id, hits in sorted(session[paths].items(), key=lambda item: item[1])[-5:]:
        print("\n".join(f"    {frame}" for frame in session.stack(stack_id)))
        print(f"  {hits} times\n")
