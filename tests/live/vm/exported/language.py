"""One handler that says much of what modules are translated from; what it computes depends on the hit alone."""

from kprobes import (
    Count,
    HashMap,
    Histogram,
    Setting,
    Sum,
    cast,
    comm,
    current,
    emit,
    kretprobe,
    retval,
    task,
)

limit = Setting("limit", 5, "what is more than this is ok")
by_what = Histogram("by_what", by=(str, int))
tens = Histogram("tens", linear=(0, 60, 10))
seen = HashMap("seen", key=int, value=int)
once = HashMap("once", key=(int, str), value=int)
total = Sum("total", by=int)
every = Count("every")


def folded(number, by=3):
    if number < 0:
        total.add(1, by=-1)
        return -number
    return number // by


def of_kind(name, whence):
    if whence:
        return "moved"
    return name


def parent_of(thread):
    return thread.real_parent


@kretprobe("ksys_lseek")
def sought(fd, offset, whence):
    if comm() != "calls":
        return
    first = offset // 7 - 3
    second = offset % 10
    yield
    third = 0
    for i in range(5):
        if i == 3:
            continue
        third += i * second
    turns = 0
    n = offset
    while n > 0 and turns < 10:
        n >>= 3
        turns += 1
    small = cast(offset, "unsigned char")
    seen[second] += 1
    once[second, comm()] = third
    if whence:
        del once[second, comm()]
    by_what.add(offset, by=(comm(), whence))
    tens.add(second * 10)
    total.add(offset, by=second)
    every.add()
    if second in (1, 3, 5) or whence:
        emit(offset, first=first, second=second, third=third, turns=turns, n=n, known=second in seen)
    elif not first or second >= 8:
        kind = of_kind(comm(), whence)
        back = folded(third - 30)
        fold = folded(offset, by=5)
        emit(
            kind=kind,
            back=back,
            fold=fold,
            ours=parent_of(task()).tgid == current.tgid,
            eight=once[second, "calls"],
            none=once.pop((second, "nobody"), 7),
            name=task().comm,
        )
    else:
        emit(
            neg=-offset,
            inv=~fd,
            low=min(second, 5),
            high=max(int(second), 3),
            bit=1 << second,
            mixed=-third < offset,
            div=(-third) // 3,
            mod=(-third) % 7,
            by_zero=third // (second - second),
            ret=retval,
            limited=second * limit,
            ok=second > limit,
            small=small,
            parent=current.real_parent.tgid == current.tgid,
            starts=comm().startswith("ca"),
        )
