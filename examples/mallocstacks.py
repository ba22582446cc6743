"""Which code of a program asks for memory, by bytes. Known from bpftrace recipes as mallocstacks.

`kprobes run examples/mallocstacks.py -p PID` or `... -- COMMAND`.
"""

from kprobes import Count, Stack, arg, stack, uprobe

asked = Count("bytes_asked", by=Stack)


@uprobe("libc:malloc")
def asks():
    asked.add(arg(1), by=stack())


def report(session):
    """Print the five that ask for most."""
    for stack_id, size in sorted(session[asked].items(), key=lambda item: item[1])[-5:]:
        print("\n".join(f"    {frame}" for frame in session.stack(stack_id)))
        print(f"  {size} bytes\n")
