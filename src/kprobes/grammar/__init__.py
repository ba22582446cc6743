"""The kernel's definition language: a line of kprobe_events in, frozen data or the kernel's refusal out.

    parse("p:myprobe do_sys_openat2 dfd=%di", kernel="6.1")     a `Definition`, or `DefinitionError`
    Events(dialect("6.1")).check(line)                          the verdict on one line of a file, after those before it

Nothing here reads a file or asks a kernel: what a verdict depends on besides the text comes in through `world.World`.
"""
