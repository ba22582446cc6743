"""What the kernel's own sample modules do: registers before and after an instruction, the time that a call takes."""

from kprobes import comm, function, kprobe, kretprobe, log, now, regs, symbol


@kprobe("__x64_sys_getppid")
def around():
    if comm() != "calls":
        return
    log(f"pre: {symbol(function())} flags {regs.flags & 0x200:#x}")
    before = regs.sp
    yield
    log(f"post: moved {before - regs.sp}")


@kretprobe("__x64_sys_getppid", maxactive=20)
def timed():
    if comm() != "calls":
        return
    entered = now()
    ret = yield
    took = now() - entered
    if took > 0:
        log(f"timed: returned {ret > 0} after {took} ns")
