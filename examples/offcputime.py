"""Where programs wait, and how long in all: kernel stacks by time off the CPU. Known from BCC as offcputime."""

from kprobes import Count, HashMap, Stack, comm, current, kprobe, now, stack, tid

left = HashMap("left", key=int, value=int)
usecs = Count("blocked_usecs", by=(str, Stack))


@kprobe("finish_task_switch*")
def switched(prev: "struct task_struct *"):
    """Runs as the thread that comes, on its own stack; `prev` is the one that goes."""
    left[prev.pid] = now()
    since = left.pop(tid(), 0)
    if since and current.mm is not None:  # not a thread of the kernel's own
        usecs.add((now() - since) // 1000, by=(comm(), stack()))


def report(session):
    """Print the places where most time was spent."""
    for (name, stack_id), spent in sorted(session[usecs].items(), key=lambda item: item[1])[-8:]:
        print("\n".join(f"    {frame}" for frame in session.stack(stack_id)))
        print(f"  {name}: {spent} us\n")
