"""How long programs wait for the address of a host. Known from BCC as gethostlatency.

`kprobes run examples/gethostlatency.py -p PID` or `... -- COMMAND`.
"""

from kprobes import comm, cstr, emit, now, pid, uretprobe


@uretprobe("libc:getaddrinfo")
def resolved(name: cstr):
    start = now()
    error = yield
    emit(pid=pid(), comm=comm(), host=name, error=error, us=(now() - start) // 1000)
