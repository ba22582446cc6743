"""Make malloc fail: the first 3 requests for a megabyte or more give NULL, as if memory had run out. How a program
takes that is rarely tested. Known from BCC as inject; this needs no support of the kernel.

    kprobes run examples/inject.py -- sqlite3 :memory: 'select length(randomblob(3000000))'
"""

from kprobes import HashMap, arg, comm, emit, return_from_function, uprobe

SMALLEST = 1 << 20
TIMES = 3

asked = HashMap("asked", key=str, value=int)


@uprobe("libc:malloc", unsafe=True)
def fail_malloc():
    size = arg(1)
    if size < SMALLEST:
        return
    asked[comm()] += 1
    if asked[comm()] <= TIMES:
        emit(comm=comm(), bytes=size)
        return_from_function(0)
