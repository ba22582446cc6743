"""Which rights are asked for, by whom, and whether they are had. Known from BCC as capable."""

from kprobes import Count, comm, kretprobe

asked = Count("asked", by=(str, int, bool))


@kretprobe("cap_capable")
def checked(cap):
    error = yield
    asked.add(by=(comm(), cap, error == 0))
