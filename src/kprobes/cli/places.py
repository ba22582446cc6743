"""A probe as the command line spells it: `[KIND:]PLACE`."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.model.probe import AutoHandler, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = {
    "p": "kprobe",
    "kprobe": "kprobe",
    "r": "kretprobe",
    "kretprobe": "kretprobe",
    "t": "tracepoint",
    "tracepoint": "tracepoint",
    "u": "uprobe",
    "uprobe": "uprobe",
    "ur": "uretprobe",
    "uretprobe": "uretprobe",
}
# The short letters go where the command goes: `r:malloc` with -p PID is the return of a function of the process.
IN_PROCESS = {"p": "uprobe", "r": "uretprobe"}
RETURNING = {"kprobe": "kretprobe", "uprobe": "uretprobe", "kretprobe": "kretprobe", "uretprobe": "uretprobe"}
SPELLINGS = """\
PROBE is a place, with a kind before it where the default won't do:
  vfs_read              a kernel function       vfs_read+0x10     an instruction in it
  'vfs_*'               many functions          ext4:ext4_iget    a function of a module
  r:vfs_read            its return              0xffffffff81234567
  t:sched:sched_switch  a tracepoint
  u:libc:malloc         a function of a program or library (ur: its return), also u:/path/to/file:name
  u:./mytool@parse.c:42 a source line, where the program has debug information
or a definition in the kernel's own language: 'p:NAME PLACE ARGUMENT...' (docs/definitions.md)
"""


def parse_place(text: str, *, user: bool = False) -> tuple[str, str]:
    """Return (kind, place) of the probe spelled *text*; *user*: the command is about a process.

    Raises:
        UsageError: nothing is left to probe.
    """
    prefix, colon, rest = text.partition(":")
    if colon and prefix in KINDS:
        kind, place = (IN_PROCESS.get(prefix, KINDS[prefix]) if user else KINDS[prefix]), rest
    else:
        kind, place = ("uprobe" if user else "kprobe"), text
    if any(ord(letter) <= 32 for letter in text.strip()) and text[:1] in {"p", "r"}:
        raise UsageError(
            f"{text!r} is a definition, which doesn't go here",
            hint="definitions go with trace, count, hist and latency; name a function",
        )
    if not place or any(ord(letter) <= 32 for letter in place):
        raise UsageError(
            f"{text!r} names nothing to probe", hint="write `kprobes trace vfs_read`; --help has the spellings"
        )
    if kind == "tracepoint" and place.count(":") != 1:
        raise UsageError(f"{text!r} is no tracepoint", hint="write t:CATEGORY:NAME, as in t:sched:sched_switch")
    return kind, place


def probes_of(
    texts: Sequence[str], handler: AutoHandler | None, *, user: bool = False, returning: bool = False
) -> list[Probe]:
    """Return the probes spelled *texts*, each with *handler*; *returning* moves function probes to the return."""
    probes = []
    for text in texts:
        kind, place = parse_place(text, user=user)
        if returning:
            if kind not in RETURNING:
                raise UsageError(f"{text!r} has no return", hint="name a function")
            kind = RETURNING[kind]
        probes.append(Probe(kind, (place,), handler))
    return probes
