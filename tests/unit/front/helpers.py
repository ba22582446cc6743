"""Plain functions that handlers of the tests call."""

from __future__ import annotations

LIMIT = 3


def same(x):
    return x


def double(x):
    return 2 * x


def clamp(x, low=0, *, high=100):
    """Several ways out, defaults, a keyword."""
    if x < low:
        return low
    if x > high:
        return high
    return x


def depth(dentry):
    n = 0
    while dentry != dentry.d_parent:
        dentry = dentry.d_parent
        n += 1
    return n


def note(counter, by):
    if by == "idle":
        return
    counter.add(LIMIT, by=by)


def name_of(file):
    return file.f_path.dentry.d_name.name.string(32)


def pair(x):
    return x + 1, x - 1


def endless(x):
    return again(x)


def again(x):
    return endless(x)


def sometimes(x):  # noqa: RET503 - the missing way is the mistake under test
    if x:
        return 1


def spread(*values):
    return values[0]


def broken(x):
    return x.nothing()


def waits(x):
    yield x


def first_above(limit):
    for i in range(16):
        if i * i > limit:
            return i
    return -1


def guarded(x):
    try:
        if x > 3:
            return x
        x += 10
    finally:
        x += 100
    return x


def checked(x):
    assert x > 2, "too little"
    return x
